/** Two versions on a clip or a labelled folder: where they differ, and who is right. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { messageOf } from "../api/client";
import type { Model } from "../api/types";
import { percent } from "../look/format";
import { shared } from "../look/shared";
import { SessionWatch, session } from "../session";
import { type Case, type Tally, judged, labelOf, tallied } from "./judging";

const MOST_ROWS = 500;

@customElement("dm-compare")
export class Compare extends LitElement {
  static override styles = [
    shared,
    css`
      .who label {
        display: grid;
        gap: 3px;
        font-size: 13px;
        color: var(--soft);
        min-width: 0;
      }
      .verdict {
        font-size: 17px;
        font-weight: 600;
        letter-spacing: -0.01em;
        overflow-wrap: anywhere;
      }
      progress {
        width: 100%;
        accent-color: var(--ink);
      }
      td.right {
        color: var(--good);
        font-weight: 600;
      }
      td.wrong {
        color: var(--bad);
      }
    `,
  ];

  @state() private places: [number, number] = [0, 0];
  @state() private cases: Case[] = [];
  @state() private compared: [Model, Model] | null = null;
  @state() private total = 0;
  @state() private running = false;
  @state() private problem = "";
  @state() private everything = false;
  #work: AbortController | null = null;

  constructor() {
    super();
    new SessionWatch(this, () => this.#choose());
  }

  override connectedCallback(): void {
    super.connectedCallback();
    this.#choose();
  }

  /** The version that answers by default against the newest other one. */
  #choose(): void {
    const models = session.models;
    const first = Math.max(0, models.findIndex((one) => one.default));
    const second = models.findLastIndex((one, place) => place !== first && one.name === models[first]?.name);
    if (this.places.every((place) => place < models.length) && this.places[0] !== this.places[1]) return;
    this.places = [first, second >= 0 ? second : first];
  }

  private async compare(files: readonly File[]): Promise<void> {
    const models = this.places.map((place) => session.models[place]) as (Model | undefined)[];
    const [first, second] = models;
    if (first === undefined || second === undefined || files.length === 0) return;
    this.#work?.abort();
    const work = new AbortController();
    this.#work = work;
    Object.assign(this, { cases: [], problem: "", total: files.length, running: true, compared: [first, second] });
    try {
      for await (const one of judged(files, [first, second], work.signal)) this.cases = [...this.cases, one];
    } catch (error) {
      if (!work.signal.aborted) this.problem = messageOf(error);
    }
    if (this.#work === work) this.running = false;
  }

  private take(event: Event): void {
    const input = event.target as HTMLInputElement;
    const files = [...(input.files ?? [])].filter((one) => !one.name.startsWith("."));
    input.value = "";
    void this.compare(files);
  }

  override render() {
    const { recording } = session;
    const clip = recording?.media;
    return html`<section class="card stack" aria-labelledby="title">
      <div>
        <h2 id="title">Compare two versions</h2>
        <p class="lead">
          On the recording at hand, or on a folder of yours. Where its folders are named as classes, the page also counts
          who is right. Files are sent to this server alone.
        </p>
      </div>
      <div class="row who">${this.#select(0, "One")} ${this.#select(1, "The other")}</div>
      <div class="row">
        <button class="main" @click=${() => this.renderRoot.querySelector<HTMLInputElement>("#folder")?.click()}>
          Choose a folder
        </button>
        <button @click=${() => this.renderRoot.querySelector<HTMLInputElement>("#clip")?.click()}>Choose a clip</button>
        ${clip ? html`<button @click=${() => this.compare([clip])}>On ${recording.name}</button>` : nothing}
        ${this.running ? html`<button @click=${() => this.#work?.abort()}>Stop</button>` : nothing}
        <input id="folder" type="file" webkitdirectory multiple hidden aria-label="Folder" @change=${this.take} />
        <input id="clip" type="file" hidden aria-label="Clip" @change=${this.take} />
      </div>
      ${this.places[0] === this.places[1] ? html`<p class="note">Both are the same version: load another one to compare.</p>` : nothing}
      ${this.problem ? html`<p class="alert" role="alert">${this.problem}</p>` : nothing}
      ${this.compared === null ? nothing : this.#result(this.compared)}
    </section>`;
  }

  #select(which: 0 | 1, name: string) {
    return html`<label
      >${name}<select
        aria-label="${name} version"
        @change=${(event: Event) => {
          const places: [number, number] = [...this.places];
          places[which] = Number((event.target as HTMLSelectElement).value);
          this.places = places;
        }}
      >
        ${session.models.map(
          (one, place) =>
            html`<option value=${place} ?selected=${place === this.places[which]}>${one.name} ${one.version}</option>`,
        )}
      </select></label
    >`;
  }

  #result(models: [Model, Model]) {
    const tally = tallied(this.cases);
    const shown = this.everything ? this.cases : this.cases.filter((one) => labelOf(one.answers[0]) !== labelOf(one.answers[1]));
    const [first, second] = models.map((one) => `${one.name} ${one.version}`) as [string, string];
    return html`
      ${this.running
        ? html`<progress max=${this.total} value=${this.cases.length} aria-label="Files judged"></progress>`
        : nothing}
      <div role="status">
        <p class="verdict">${verdict(tally, first, second)}</p>
        <p class="note">${details(tally, first, second)}</p>
      </div>
      <label class="check">
        <input
          type="checkbox"
          .checked=${this.everything}
          @change=${(event: Event) => {
            this.everything = (event.target as HTMLInputElement).checked;
          }}
        />
        Show files on which they agree, too
      </label>
      ${shown.length === 0
        ? nothing
        : html`<div class="scroll tall" tabindex="0" role="region" aria-label="Files">
            <table>
              <thead>
                <tr>
                  <th scope="col">file</th>
                  <th scope="col">truth</th>
                  <th scope="col">${first}</th>
                  <th scope="col">${second}</th>
                </tr>
              </thead>
              <tbody>
                ${shown.slice(0, MOST_ROWS).map(
                  (one) => html`<tr>
                    <td class="wrap">${one.name}</td>
                    <td class="wrap">${one.truth ?? "–"}</td>
                    ${one.answers.map((answer) => {
                      const label = labelOf(answer);
                      const judged_ = one.truth === null ? "" : label === one.truth ? "right" : "wrong";
                      return html`<td class="wrap ${judged_}">
                        ${"error" in answer ? answer.error : `${answer.label} (${percent(answer.probability)})`}
                        ${judged_ ? html`<span class="hidden">${judged_}</span>` : nothing}
                      </td>`;
                    })}
                  </tr>`,
                )}
              </tbody>
            </table>
          </div>`}
    `;
  }
}

function verdict({ files, known, right, differ, p }: Tally, first: string, second: string): string {
  if (known === 0) return `They differ on ${differ} of ${files} ${files === 1 ? "file" : "files"}.`;
  if (right[0] === right[1]) return `Both are right on ${right[0]} of ${known}.`;
  const [better, most, least] = right[1] > right[0] ? [second, right[1], right[0]] : [first, right[0], right[1]];
  const sure = p !== null && p < 0.05 ? "" : ", which may be chance";
  return `${better} is right more often: ${most} against ${least} of ${known}${sure}.`;
}

function details({ files, known, only, differ, p }: Tally, first: string, second: string): string {
  if (known === 0) return "No file's folder is named as a class, so who is right is not known.";
  const chance = p === null ? "" : ` So uneven a split comes by chance with a probability of ${percent(p)} (sign test).`;
  const unknown = known < files ? ` Of ${files - known} files the truth is not known.` : "";
  return `They differ on ${differ}. Only ${first} is right on ${only[0]}, only ${second} on ${only[1]}.${chance}${unknown}`;
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-compare": Compare;
  }
}
