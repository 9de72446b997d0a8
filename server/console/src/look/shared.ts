/** Styles that every component of the console adopts. */
import { css } from "lit";

export const shared = css`
  *,
  *::before,
  *::after {
    box-sizing: border-box;
  }
  [hidden] {
    display: none !important;
  }
  :host {
    display: block;
    min-width: 0;
  }
  h2,
  h3,
  p,
  ul,
  ol,
  dl,
  dd,
  figure {
    margin: 0;
    padding: 0;
  }
  ul,
  ol {
    list-style: none;
  }
  h2 {
    font-size: 16px;
    font-weight: 620;
    line-height: 1.3;
    letter-spacing: -0.005em;
  }
  h3 {
    font-size: 14px;
    font-weight: 600;
  }
  .card {
    background: var(--card);
    border: 1px solid var(--edge);
    border-radius: var(--radius);
    box-shadow: 0 1px 2px var(--shade);
    padding: 20px;
    min-width: 0;
  }
  .card > h2 + .lead {
    margin-top: 2px;
  }
  .stack {
    display: grid;
    grid-template-columns: minmax(0, 1fr);
    gap: var(--gap);
    align-content: start;
    min-width: 0;
  }
  .row {
    display: flex;
    flex-wrap: wrap;
    gap: 8px 12px;
    align-items: center;
  }
  .spread {
    justify-content: space-between;
    max-width: none;
  }
  .lead,
  p.note {
    max-width: 72ch;
  }
  .lead,
  .note {
    color: var(--soft);
  }
  .note,
  small {
    font-size: 13px;
    color: var(--soft);
  }
  .num {
    font-variant-numeric: tabular-nums;
    white-space: nowrap;
  }
  .clip {
    overflow: hidden;
    text-overflow: ellipsis;
    white-space: nowrap;
    min-width: 0;
  }
  .wrap {
    overflow-wrap: anywhere;
  }
  button,
  .button {
    font: inherit;
    font-size: 14px;
    font-weight: 550;
    color: var(--ink);
    background: var(--card);
    border: 1px solid var(--edge);
    border-radius: 9px;
    min-height: 36px;
    padding: 5px 14px;
    cursor: pointer;
    transition:
      background 0.15s,
      border-color 0.15s;
  }
  button:hover:not(:disabled) {
    background: var(--raised);
    border-color: var(--control);
  }
  button:disabled {
    cursor: default;
    opacity: 0.55;
  }
  button.main {
    background: var(--ink);
    border-color: var(--ink);
    color: var(--page);
  }
  button.main:hover:not(:disabled) {
    background: var(--soft);
    border-color: var(--soft);
  }
  button.quiet {
    border-color: transparent;
    background: transparent;
  }
  button.quiet:hover:not(:disabled) {
    background: var(--raised);
  }
  button[aria-pressed="true"] {
    background: var(--ink);
    border-color: var(--ink);
    color: var(--page);
  }
  a {
    color: var(--link);
  }
  input,
  select,
  textarea {
    font: inherit;
    font-size: 14px;
    color: var(--ink);
  }
  select,
  input[type="text"],
  input[type="password"],
  input[type="number"] {
    background: var(--card);
    border: 1px solid var(--control);
    border-radius: 9px;
    min-height: 36px;
    padding: 4px 10px;
    max-width: 100%;
  }
  input[type="range"] {
    accent-color: var(--ink);
    min-width: 0;
    width: 100%;
    margin: 0;
    height: 28px;
  }
  input[type="checkbox"] {
    accent-color: var(--ink);
    width: 17px;
    height: 17px;
    margin: 0;
  }
  label.check {
    display: inline-flex;
    gap: 8px;
    align-items: center;
    min-height: 32px;
    cursor: pointer;
  }
  :focus-visible {
    outline: 2.5px solid var(--link);
    outline-offset: 2px;
    border-radius: 6px;
  }
  .pill {
    display: inline-flex;
    align-items: center;
    gap: 6px;
    font-size: 12.5px;
    font-weight: 550;
    line-height: 1.4;
    padding: 2px 9px;
    border-radius: 10px;
    background: var(--raised);
    color: var(--soft);
    overflow-wrap: break-word;
  }
  .pill.good {
    background: var(--good-back);
    color: var(--good);
  }
  .pill.bad {
    background: var(--bad-back);
    color: var(--bad);
  }
  .pill.warn {
    background: var(--warn-back);
    color: var(--warn);
  }
  .dot {
    flex: none;
    display: inline-block;
    width: 10px;
    height: 10px;
    border-radius: 3px;
    background: var(--control);
  }
  .c0 {
    --own: var(--c0);
  }
  .c1 {
    --own: var(--c1);
  }
  .c2 {
    --own: var(--c2);
  }
  .c3 {
    --own: var(--c3);
  }
  .c4 {
    --own: var(--c4);
  }
  .c5 {
    --own: var(--c5);
  }
  .answer {
    --own: var(--ink);
  }
  .dot[class*=" c"] {
    background: var(--own);
  }
  .meter {
    position: relative;
    height: 10px;
    border-radius: 5px;
    background: var(--faint);
  }
  .meter i {
    display: block;
    height: 100%;
    border-radius: 5px;
    background: var(--own, var(--ink));
    min-width: 2px;
    transition: width 0.35s ease;
  }
  .meter b {
    position: absolute;
    top: -3px;
    bottom: -3px;
    width: 2px;
    margin-left: -1px;
    border-radius: 1px;
    background: var(--ink);
  }
  table {
    border-collapse: collapse;
    font-size: 13.5px;
    font-variant-numeric: tabular-nums;
    width: 100%;
  }
  th {
    text-align: left;
    font-weight: 600;
    color: var(--soft);
  }
  th,
  td {
    padding: 6px 14px 6px 0;
    border-bottom: 1px solid var(--faint);
    vertical-align: top;
  }
  tbody tr:last-child > * {
    border-bottom: 0;
  }
  .scroll {
    overflow-x: auto;
  }
  .tall {
    max-height: 360px;
    overflow: auto;
  }
  details > summary {
    cursor: pointer;
    color: var(--soft);
    font-size: 13.5px;
    width: fit-content;
    padding: 4px 0;
  }
  details > summary:hover {
    color: var(--ink);
  }
  pre {
    margin: 0;
    overflow-x: auto;
    font: 12.5px/1.55 var(--mono);
    background: var(--raised);
    border-radius: 10px;
    padding: 12px 14px;
  }
  .alert {
    border-radius: 10px;
    background: var(--bad-back);
    color: var(--ink);
    padding: 12px 14px;
    border-left: 4px solid var(--bad);
    overflow-wrap: anywhere;
  }
  .alert.calm {
    background: var(--raised);
    border-left-color: var(--control);
  }
  .hidden {
    position: absolute;
    width: 1px;
    height: 1px;
    margin: -1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
  }
  .busy {
    animation: breathe 1.4s ease-in-out infinite;
  }
  @keyframes breathe {
    50% {
      opacity: 0.45;
    }
  }
  @media (prefers-reduced-motion: reduce) {
    *,
    *::before,
    *::after {
      animation: none !important;
      transition: none !important;
      scroll-behavior: auto !important;
    }
  }
  @media (max-width: 520px) {
    .card {
      padding: 16px;
    }
  }
`;
