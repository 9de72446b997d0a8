/** Why: what each modality added to the answer, what would be said without it, and which moments mattered. */
import { LitElement, css, html, nothing, svg } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { Explanation, Occlusion } from "../api/types";
import { percent, seconds, signed } from "../look/format";
import { colourClass } from "../look/palette";
import { placed } from "../look/placed";
import { shared } from "../look/shared";

@customElement("dm-why")
export class Why extends LitElement {
  static override styles = [
    shared,
    css`
      .card {
        display: grid;
        gap: 16px;
      }
      .bars {
        display: grid;
        gap: 14px;
      }
      .bar {
        display: grid;
        grid-template-columns: minmax(84px, 0.6fr) 2fr;
        gap: 2px 14px;
        align-items: center;
      }
      .bar .name {
        display: flex;
        gap: 9px;
        align-items: center;
        font-weight: 600;
        overflow-wrap: anywhere;
      }
      .track {
        position: relative;
        height: 26px;
        border-radius: 7px;
        background: linear-gradient(var(--control), var(--control)) var(--zero) 0 / 1px 100% no-repeat var(--raised);
      }
      .track i {
        position: absolute;
        top: 4px;
        bottom: 4px;
        border-radius: 5px;
        background: var(--own);
        min-width: 2px;
      }
      .bar .words {
        grid-column: 2;
        font-size: 13.5px;
        color: var(--soft);
        overflow-wrap: anywhere;
      }
      .words b {
        color: var(--ink);
        font-weight: 600;
      }
      svg {
        display: block;
        width: 100%;
        height: 64px;
        overflow: visible;
      }
      svg rect.back {
        fill: var(--raised);
      }
      svg rect.cell {
        fill: var(--own);
      }
      svg rect.hit {
        fill: transparent;
        cursor: pointer;
      }
      svg rect.hit:hover {
        fill: color-mix(in srgb, var(--own) 18%, transparent);
      }
      .lane + .lane {
        margin-top: 14px;
      }
    `,
  ];

  @property({ attribute: false }) explanation!: Explanation;
  @property({ attribute: false }) modalities: readonly string[] = [];
  @property({ type: Boolean }) busy = false;
  @property() refused = "";

  override render() {
    const { explanation } = this;
    const entries = Object.entries(explanation.modalities);
    return html`<section class="card" aria-labelledby="title">
      <div>
        <h2 id="title">Why “<span class="wrap">${explanation.label}</span>”?</h2>
        <p class="lead">
          With nothing to go by its probability would be ${percent(Math.exp(explanation.nothing_log_probability))}; with
          all it is ${percent(Math.exp(explanation.log_probability))}. This is what each modality did to it.
        </p>
      </div>
      <ul class="bars">
        ${entries.map(([name, one]) => this.#bar(name, one))}
      </ul>
      <p class="note">
        Shapley values of the log-probability: ${entries.map(([, one]) => signed(one.shapley ?? 0)).join(" ")} =
        ${signed(explanation.log_probability - explanation.nothing_log_probability)}.
      </p>
      ${explanation.occlusion ? this.#occlusion(explanation.occlusion) : this.#ask()}
    </section>`;
  }

  #bar(name: string, one: Explanation["modalities"][string]) {
    const values = Object.values(this.explanation.modalities).map((each) => each.shapley ?? 0);
    const low = Math.min(0, ...values);
    const span = Math.max(0, ...values) - low || 1;
    const at = (value: number): number => (100 * (value - low)) / span;
    const value = one.shapley ?? 0;
    const from = Math.min(0, value);
    const factor = Math.exp(Math.abs(value));
    const times = factor >= 1000 ? "over a thousand" : factor.toPrecision(factor < 10 ? 2 : 3);
    return html`<li class="bar ${colourClass(name, this.modalities)}">
      <span class="name"><span class="dot ${colourClass(name, this.modalities)}"></span>${name}</span>
      <div
        class="track"
        role="img"
        aria-label="${name}: Shapley value ${signed(value)}"
        ${placed({ "--zero": `${at(0)}%` })}
      >
        <i ${placed({ left: `${at(from)}%`, width: `${at(Math.abs(value) + low)}%` })}></i>
      </div>
      <p class="words">
        ${one.shapley === null
          ? "not known: the time ran out."
          : html`made it <b class="num">${times} times</b> ${value < 0 ? "less" : "as"} likely.`}
        ${one.without === null
          ? "Without it there would be no answer."
          : html`Without it the answer would be <b>${one.without.label}</b> (${percent(one.without.probability)}).`}
      </p>
    </li>`;
  }

  #ask() {
    if (this.refused) return html`<p class="note">${this.refused}</p>`;
    return html`<div class="row">
      <button ?disabled=${this.busy} @click=${() => this.dispatchEvent(new Event("occlude"))}>
        ${this.busy ? "Blanking stretch after stretch …" : "Which moments mattered?"}
      </button>
    </div>`;
  }

  #occlusion({ stretches, modalities }: Occlusion) {
    const first = stretches[0];
    const last = stretches.at(-1);
    if (first === undefined || last === undefined) return nothing;
    const whole = Math.exp(this.explanation.log_probability);
    const span = last.end_s - first.start_s || 1;
    const drop = (value: number | null | undefined): number =>
      value === null || value === undefined ? 0 : whole - Math.exp(value);
    return html`<div>
      <h3>Which moments mattered</h3>
      <p class="note">
        How far the probability of “${this.explanation.label}” falls when a stretch of one modality is blanked. Press one
        to go there.
      </p>
      ${Object.entries(modalities).map(
        ([name, one]) => html`<div class="lane ${colourClass(name, this.modalities)}">
          <div class="row spread note"><span>${name}</span><span>up to −${percent(Math.max(0, ...one.log_probability.map(drop)))}</span></div>
          <svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="${name}: fall of the probability by stretch; the table has the numbers">
            <rect class="back" width="100" height="40" rx="1"></rect>
            ${stretches.map((stretch, place) => {
              const x = (100 * (stretch.start_s - first.start_s)) / span;
              const width = (100 * (stretch.end_s - stretch.start_s)) / span;
              const height = 40 * Math.max(0.02, Math.min(1, drop(one.log_probability[place])));
              return svg`<rect class="cell" x=${x + 0.2} width=${Math.max(0.2, width - 0.4)} y=${40 - height} height=${height}></rect>
                <rect class="hit" x=${x} width=${width} height="40" @click=${() => this.#go(stretch.start_s)}></rect>`;
            })}
          </svg>
        </div>`,
      )}
      <details>
        <summary>The same as a table</summary>
        <div class="scroll tall" tabindex="0" role="region" aria-label="Occlusion by stretch">
          <table>
            <thead>
              <tr>
                <th scope="col">blanked</th>
                ${Object.keys(modalities).map((name) => html`<th scope="col">${name}</th>`)}
              </tr>
            </thead>
            <tbody>
              ${stretches.map(
                (stretch, place) => html`<tr>
                  <td>${seconds(stretch.start_s)} to ${seconds(stretch.end_s)}</td>
                  ${Object.values(modalities).map((one) => {
                    const value = one.log_probability[place];
                    return html`<td class="wrap">
                      ${value === null || value === undefined ? "–" : percent(Math.exp(value))}
                      ${one.label[place] === this.explanation.label ? nothing : html`, then ${one.label[place] ?? "no answer"}`}
                    </td>`;
                  })}
                </tr>`,
              )}
            </tbody>
          </table>
        </div>
      </details>
    </div>`;
  }

  #go(at: number): void {
    this.dispatchEvent(new CustomEvent<number>("seek", { detail: at }));
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-why": Why;
  }
}
