/** A model card: what a bundle version is, how good it was, and what it was made of. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { api, messageOf } from "../api/client";
import type { Model, ModelDetail } from "../api/types";
import { percent, signed } from "../look/format";
import { colourClass } from "../look/palette";
import { shared } from "../look/shared";
import { meter } from "../parts/meter";
import { fields } from "./fields";

interface Figures {
  clean_accuracy?: number;
  mean_accuracy?: number;
  worst_regret?: number;
}

interface Fusion {
  chosen?: Figures;
  instead_of?: Record<string, Figures>;
}

interface Split {
  clips?: number;
  accuracy?: number;
  heads?: Record<string, { accuracy?: number } | undefined>;
}

@customElement("dm-model-card")
export class ModelCard extends LitElement {
  static override styles = [
    shared,
    css`
      .card {
        display: grid;
        gap: 14px;
        align-content: start;
      }
      h3 {
        font-size: 18px;
        letter-spacing: -0.01em;
      }
      .figures {
        display: grid;
        grid-template-columns: minmax(70px, max-content) 1fr 60px;
        gap: 6px 12px;
        align-items: center;
        font-size: 13.5px;
      }
      .figures .num {
        text-align: right;
      }
      .figures .clip {
        max-width: 150px;
      }
      .labels {
        font-size: 13.5px;
        color: var(--soft);
      }
      .fields th {
        width: 40%;
        font-weight: 450;
      }
      .missing {
        color: var(--soft);
        font-style: italic;
      }
      .inner {
        padding: 4px 0 8px 14px;
        border-left: 2px solid var(--faint);
      }
      h4 {
        margin: 0 0 8px;
        font-size: 13.5px;
        font-weight: 600;
      }
    `,
  ];

  @property({ attribute: false }) model!: Model;
  @state() private detail: ModelDetail | null = null;
  @state() private problem = "";
  #asked = "";

  override willUpdate(): void {
    const wanted = `${this.model.sha256}${this.model.share_percent}`;
    if (wanted === this.#asked) return;
    this.#asked = wanted;
    api.model(this.model.name, this.model.version).then(
      (found) => {
        this.detail = found;
      },
      (error: unknown) => {
        this.problem = messageOf(error);
      },
    );
  }

  override render() {
    const { model, detail } = this;
    const modalities = model.modalities.map((one) => one.name);
    return html`<article class="card" aria-label="${model.name} version ${model.version}">
      <div class="row spread">
        <h3 class="wrap">${model.name} <span class="note">version ${model.version}</span></h3>
        <div class="row">
          ${model.default ? html`<span class="pill good">answers by default</span>` : nothing}
          ${model.share_percent > 0 && model.share_percent < 100
            ? html`<span class="pill">${model.share_percent} % of requests</span>`
            : nothing}
          ${model.shadow ? html`<span class="pill warn">shadow</span>` : nothing}
        </div>
      </div>
      ${model.description ? html`<p class="wrap">${model.description}</p>` : nothing}
      <div class="row">
        ${modalities.map(
          (name, place) =>
            html`<span class="pill"
              ><span class="dot ${colourClass(name, modalities)}"></span>${name}, ${model.modalities[place]?.kind}</span
            >`,
        )}
        <span class="pill">${model.clip_s} s an answer</span>
        ${(model.precision ?? "fp32") === "fp32" ? nothing : html`<span class="pill">encoders in ${model.precision}</span>`}
      </div>
      <p class="labels wrap">${model.labels.length} classes: ${shortened(model.labels)}</p>
      ${this.problem ? html`<p class="alert">${this.problem}</p>` : nothing}
      ${detail === null ? nothing : [this.#figures(detail, modalities), this.#beaten(detail)]} ${detail === null ? nothing : this.#more(detail)}
    </article>`;
  }

  #figures({ metrics }: ModelDetail, modalities: string[]) {
    const test = (metrics["test"] ?? metrics["validation"]) as Split | undefined;
    if (test?.accuracy === undefined) return html`<p class="note">Its accuracy is not recorded.</p>`;
    const heads = Object.entries(test.heads ?? {}).filter(([name]) => modalities.includes(name));
    return html`<div>
      <h4>Accuracy on ${metrics["test"] ? "test" : "validation"} clips${test.clips === undefined ? "" : ` (${test.clips})`}</h4>
      <div class="figures">
        <b>answer</b>${meter("Accuracy of the answer", test.accuracy, "answer")}<span class="num">${percent(test.accuracy)}</span>
        ${heads.map(
          ([name, own]) => html`<span class="clip" title=${name}>${name} alone</span>${meter(
              `Accuracy of ${name} alone`,
              own?.accuracy ?? null,
              colourClass(name, modalities),
            )}<span class="num">${percent(own?.accuracy)}</span>`,
        )}
      </div>
    </div>`;
  }

  /** What the fusion was chosen over, as the manifest has it. */
  #beaten({ card }: ModelDetail) {
    const fusion = card?.["fusion"] as Fusion | null | undefined;
    if (!fusion?.chosen) return nothing;
    const rows: [string, Figures][] = [["this one", fusion.chosen], ...Object.entries(fusion.instead_of ?? {})];
    return html`<details>
      <summary>The fusion, and what it was chosen over</summary>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">fusion</th>
              <th scope="col">clean</th>
              <th scope="col">corrupted, mean</th>
              <th scope="col">worst against the better modality</th>
            </tr>
          </thead>
          <tbody>
            ${rows.map(
              ([name, one]) => html`<tr>
                <th scope="row">${name}</th>
                <td>${percent(one.clean_accuracy)}</td>
                <td>${percent(one.mean_accuracy)}</td>
                <td>${one.worst_regret === undefined ? "–" : `${signed(100 * one.worst_regret, 1)} points`}</td>
              </tr>`,
            )}
          </tbody>
        </table>
      </div>
    </details>`;
  }

  #more(detail: ModelDetail) {
    const { created, sha256, fusion, deadlines_ms, metrics, card } = detail;
    return html`<details>
      <summary>All that is recorded</summary>
      <div class="inner">
        ${fields({ created, "sha256 of the manifest": sha256 })}
        ${card ? fields(card) : fields({ data: null, splits: null, "figures on corrupted clips": null, signature: null })}
        ${fields({ fusion, "time limits of encoders, ms": deadlines_ms, "all figures": metrics })}
      </div>
    </details>`;
  }
}

function shortened(labels: readonly string[]): string {
  return labels.length <= 14 ? labels.join(", ") : `${labels.slice(0, 12).join(", ")} and ${labels.length - 12} more`;
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-model-card": ModelCard;
  }
}
