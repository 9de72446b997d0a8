import { css } from "lit";

export const styles = css`
  .columns {
    display: grid;
    grid-template-columns: minmax(300px, 5fr) 7fr;
    gap: var(--gap);
    align-items: start;
  }
  .side {
    min-width: 0;
  }
  .welcome {
    max-width: 680px;
    margin: 4vh auto 0;
  }
  .hero {
    text-align: center;
    display: grid;
    justify-items: center;
    gap: 8px;
    margin-bottom: 6px;
  }
  .hero h2 {
    font-size: clamp(25px, 4.4vw, 36px);
    letter-spacing: -0.025em;
    line-height: 1.12;
    font-weight: 660;
    text-wrap: balance;
  }
  .hero .lead {
    font-size: 16.5px;
    text-wrap: balance;
  }
  .waiting {
    min-height: 240px;
    display: grid;
    place-items: center;
    color: var(--soft);
  }
  .fates {
    display: grid;
    gap: 8px;
  }
  .times {
    display: flex;
    gap: 3px;
    height: 22px;
    margin: 14px 0 10px;
  }
  .times div {
    border-radius: 5px;
    min-width: 3px;
  }
  .t0 {
    background: var(--edge);
  }
  .t1 {
    background: color-mix(in srgb, var(--ink) 78%, var(--card));
  }
  .t2 {
    background: color-mix(in srgb, var(--ink) 52%, var(--card));
  }
  .t3 {
    background: color-mix(in srgb, var(--ink) 32%, var(--card));
  }
  .t4 {
    background: color-mix(in srgb, var(--ink) 16%, var(--card));
  }
  .legend {
    display: flex;
    flex-wrap: wrap;
    gap: 4px 18px;
    font-size: 13px;
    color: var(--soft);
  }
  .legend b {
    font-weight: 550;
    color: var(--ink);
  }
  .legend i {
    display: inline-block;
    width: 10px;
    height: 10px;
    border-radius: 3px;
    margin-right: 7px;
  }
  @media (max-width: 900px) {
    /* One column: what is played, what is answered, what if, and all the rest. */
    .columns {
      display: flex;
      flex-direction: column;
      align-items: stretch;
    }
    .columns > .stack {
      display: contents;
    }
    .columns > .stack > * {
      order: 3;
    }
    .columns > .stack > .first {
      order: 0;
    }
    .columns > .stack > .second {
      order: 1;
    }
    .columns > .stack > .third {
      order: 2;
    }
    .columns > .stack > .last {
      order: 4;
    }
  }
`;
