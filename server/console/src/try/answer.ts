/** The answer: label, sentence, what each head believes and how much it counted, beside the answer before. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { ModalityAnswer, Prediction } from "../api/types";
import { percent, phrase } from "../look/format";
import { colourClass } from "../look/palette";
import { placed } from "../look/placed";
import { shared } from "../look/shared";
import { meter } from "../parts/meter";
import { session } from "../session";
import { sentence, whyAbstained } from "./words";

@customElement("dm-answer")
export class Answer extends LitElement {
  static override styles = [
    shared,
    css`
      .card {
        display: grid;
        gap: 22px;
      }
      .top {
        display: grid;
        grid-template-columns: 1fr auto;
        gap: 4px 20px;
        align-items: end;
      }
      .label {
        font-size: clamp(34px, 6vw, 52px);
        line-height: 1.05;
        font-weight: 680;
        letter-spacing: -0.03em;
        overflow-wrap: anywhere;
      }
      .probability {
        font-size: 26px;
        font-weight: 550;
        font-variant-numeric: tabular-nums;
        letter-spacing: -0.02em;
      }
      .before {
        grid-column: 1 / -1;
      }
      .sentence {
        font-size: 15.5px;
        color: var(--soft);
        overflow-wrap: anywhere;
      }
      .set {
        display: grid;
        gap: 5px;
        margin-top: 12px;
      }
      .shares {
        display: flex;
        gap: 3px;
        height: 30px;
      }
      .shares.thin {
        height: 8px;
        margin-top: 5px;
        opacity: 0.6;
      }
      .shares div {
        background: var(--own);
        border-radius: 6px;
        min-width: 3px;
        transition: flex-grow 0.4s ease;
      }
      .shares.thin div {
        border-radius: 4px;
      }
      .heads {
        display: grid;
        gap: 18px;
      }
      .head {
        display: grid;
        grid-template-columns: minmax(120px, 1.1fr) minmax(110px, 1.2fr) 2fr;
        gap: 6px 18px;
        align-items: center;
      }
      .head + .head {
        border-top: 1px solid var(--faint);
        padding-top: 18px;
      }
      .who {
        font-weight: 600;
        display: flex;
        gap: 9px;
        align-items: center;
        flex-wrap: wrap;
        overflow-wrap: anywhere;
      }
      .vote {
        display: grid;
        gap: 2px;
        justify-items: start;
      }
      .vote b {
        font-weight: 600;
        font-size: 16px;
        overflow-wrap: anywhere;
      }
      .bars {
        display: grid;
        grid-template-columns: max-content 1fr 52px;
        gap: 6px 12px;
        align-items: center;
        font-size: 13px;
        color: var(--soft);
      }
      .bars span:last-of-type {
        text-align: right;
      }
      .bars .num {
        text-align: right;
      }
      .detail {
        grid-column: 1 / -1;
      }
      .ranks {
        display: grid;
        grid-template-columns: minmax(60px, max-content) 1fr 64px;
        gap: 7px 14px;
        align-items: center;
        font-size: 14px;
      }
      .ranks .clip {
        max-width: 180px;
      }
      .ranks .num {
        text-align: right;
      }
      .ranks li {
        display: contents;
      }
      h3 {
        margin-bottom: 8px;
      }
      @media (max-width: 640px) {
        .head {
          grid-template-columns: 1fr 1fr;
        }
        .bars {
          grid-column: 1 / -1;
        }
      }
    `,
  ];

  @property({ attribute: false }) answer!: Prediction;
  /** The answer to the recording as it is, where this one is to something changed. */
  @property({ attribute: false }) baseline: Prediction | null = null;

  override render() {
    const { answer, baseline: before } = this;
    const names = Object.keys(answer.modalities);
    return html`<article class="card" aria-label="Answer">
      <div>
        <div class="top">
          <div class="label">${answer.label}</div>
          <div class="probability">${percent(answer.probability)}</div>
          ${before === null
            ? nothing
            : html`<p class="before note wrap">
                before: <strong>${before.label}</strong> ${percent(before.probability)}
                ${before.label === answer.label ? nothing : html`<span class="pill warn">another answer</span>`}
              </p>`}
        </div>
        <p class="sentence">${sentence(answer)}</p>
        ${this.#set(answer)}
        ${answer.truncated
          ? html`<p class="note">
              A track was cut off:
              ${Object.entries(answer.truncations).map(
                ([name, one]) => html`${name} holds ${one.held_s} s of ${one.promised_s} s. `,
              )}
            </p>`
          : nothing}
      </div>
      <div>
        <h3>How much each counted</h3>
        ${this.#shares(answer, names, false)} ${before === null ? nothing : this.#shares(before, names, true)}
      </div>
      <ul class="heads">
        ${names.map((name) => this.#head(name, answer.modalities[name] as ModalityAnswer, names))}
        ${answer.fused_head === null ? nothing : this.#fused(answer.fused_head, colourClass("fused", names))}
      </ul>
      <div>
        <h3>Most probable classes</h3>
        <ol class="ranks">
          ${answer.predictions.map(
            (one) => html`<li>
              <span class="clip" title=${one.label}>${one.label}</span>
              ${meter(`Probability of ${one.label}`, one.probability, "answer", this.#earlier(one.label))}
              <span class="num">${percent(one.probability)}</span>
            </li>`,
          )}
        </ol>
      </div>
      <p class="note wrap">${answer.model} version ${answer.version} · request ${answer.request_id}</p>
    </article>`;
  }

  /** The prediction set with its promise, and why the answer abstained. */
  #set(answer: Prediction) {
    const labels = answer.set;
    if (!labels) return nothing;
    const coverage = session.models.find((one) => one.name === answer.model && one.version === answer.version)
      ?.prediction_sets?.coverage;
    return html`<div class="set">
      ${answer.abstained
        ? html`<p class="wrap"><span class="pill warn">abstained</span> ${whyAbstained(answer)}</p>`
        : nothing}
      <p class="wrap">
        ${labels.length === 1 ? "In the set, alone: " : `In the set of ${labels.length}: `}
        ${labels.map((label) => html`<span class="pill">${label}</span> `)}
      </p>
      <p class="note wrap">
        ${coverage === undefined ? "Sets hold" : `${percent(coverage)} of sets hold`} the true label, on average over
        recordings like those it was calibrated on; not under drift.
      </p>
    </div>`;
  }

  #earlier(label: string): number | null | undefined {
    if (this.baseline === null) return undefined;
    return this.baseline.predictions.find((one) => one.label === label)?.probability ?? null;
  }

  #shares(of: Prediction, names: string[], thin: boolean) {
    const parts = names.map((name) => ({ name, weight: of.modalities[name]?.weight ?? 0 }));
    if (of.fused_head && of.fused_head.weight > 0) parts.push({ name: "fused", weight: of.fused_head.weight });
    const words = parts.map((one) => `${one.name} ${percent(one.weight)}`).join(", ");
    return html`<div
      class="shares ${thin ? "thin" : ""}"
      role="img"
      aria-label="${thin ? "Weights before" : "Weights"}: ${words}"
      title="${thin ? "before: " : ""}${words}"
    >
      ${parts
        .filter((one) => one.weight > 0)
        .map(
          (one) => html`<div class=${colourClass(one.name, names)} ${placed({ "flex-grow": String(one.weight) })}></div>`,
        )}
    </div>`;
  }

  #head(name: string, own: ModalityAnswer, names: string[]) {
    const colour = colourClass(name, names);
    const earlier = this.baseline?.modalities[name];
    return html`<li class="head">
      <div class="who"><span class="dot ${colour}"></span><span class="wrap">${name}</span></div>
      <div class="vote">
        ${own.label === null
          ? nothing
          : html`<div><b>${own.label}</b> <span class="num note">${percent(own.probability)}</span></div>`}
        ${pill(own)}
      </div>
      <div class="bars">
        <span>certainty</span>${meter(`${name}: certainty`, own.certainty, colour, earlier?.certainty)}
        <span class="num">${percent(own.certainty)}</span> <span>weight</span>${meter(
          `${name}: weight`,
          own.weight,
          colour,
          earlier?.weight,
        )}
        <span class="num">${percent(own.weight)}</span>
      </div>
      ${own.detail ? html`<p class="detail note wrap">${own.detail}</p>` : nothing}
      ${own.channel ? html`<p class="detail note">heard: ${own.channel}</p>` : nothing}
    </li>`;
  }

  #fused(own: { certainty: number | null; weight: number }, colour: string) {
    const earlier = this.baseline?.fused_head;
    return html`<li class="head">
      <div class="who"><span class="dot ${colour}"></span>fused head</div>
      <div class="vote note">sees all modalities at once</div>
      <div class="bars">
        <span>certainty</span>${meter("fused head: certainty", own.certainty, colour, earlier?.certainty)}
        <span class="num">${percent(own.certainty)}</span> <span>weight</span>${meter(
          "fused head: weight",
          own.weight,
          colour,
          earlier?.weight,
        )}
        <span class="num">${percent(own.weight)}</span>
      </div>
    </li>`;
  }
}

export function pill(own: { status: string; reason?: string | null }) {
  const kind = own.status === "ok" ? "good" : own.reason === "not_requested" ? "" : "bad";
  return html`<span class="pill ${kind}">${phrase(own.status, own.reason)}</span>`;
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-answer": Answer;
  }
}
