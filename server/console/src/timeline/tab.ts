/** Timeline: a long recording, judged window after window, as lanes under the player. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { ApiError, api, messageOf } from "../api/client";
import { jsonLines } from "../api/ndjson";
import type { TimelineLine, TimelineWindow } from "../api/types";
import { clock, percent, phrase } from "../look/format";
import { shared } from "../look/shared";
import type { Player } from "../parts/player";
import { SessionWatch, session } from "../session";
import { csvOf } from "./table";
import "../parts/player";
import "../parts/source";
import "./lanes";

/** Rows that the page's own table shows; the export has all. */
const ROWS = 300;

@customElement("dm-timeline")
export class Timeline extends LitElement {
  static override styles = [
    shared,
    css`
      .top {
        display: grid;
        grid-template-columns: minmax(280px, 1fr) 1fr;
        gap: var(--gap);
      }
      .settings {
        align-items: end;
      }
      .settings label {
        display: grid;
        gap: 3px;
        font-size: 13px;
        color: var(--soft);
      }
      .settings input {
        width: 104px;
      }
      progress {
        width: 100%;
        height: 6px;
        accent-color: var(--ink);
      }
      @media (max-width: 820px) {
        .top {
          grid-template-columns: minmax(0, 1fr);
        }
      }
    `,
  ];

  @state() private windows: TimelineWindow[] = [];
  @state() private problem = "";
  @state() private running = false;
  @state() private now = 0;
  @state() private windowS: number | null = null;
  @state() private hopS: number | null = null;
  @query("dm-player") private readonly player?: Player | null;
  #work: AbortController | null = null;
  #recording = session.recording;

  constructor() {
    super();
    new SessionWatch(this, () => {
      if (session.recording === this.#recording) return;
      this.#recording = session.recording;
      this.#work?.abort();
      this.windows = [];
      this.problem = "";
      this.now = 0;
      // Chosen here, not in another tab: judged at once.
      if (this.checkVisibility()) void this.judge();
    });
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#work?.abort();
  }

  private async judge(): Promise<void> {
    if (session.model === null || session.recording === null) return;
    this.#work?.abort();
    const work = new AbortController();
    this.#work = work;
    this.windows = [];
    this.problem = "";
    this.running = true;
    try {
      const form = session.form({ window_s: this.windowS, hop_s: this.hopS, top_k: session.model.labels.length });
      await this.#read(await api.timeline(form, work.signal), work.signal);
    } catch (error) {
      if (!work.signal.aborted) {
        const absent = error instanceof ApiError && error.absent;
        this.problem = absent ? "This server has no timeline: it does not know /v1/timeline." : messageOf(error);
      }
    }
    if (this.#work === work) this.running = false;
  }

  async #read(response: Response, signal: AbortSignal): Promise<void> {
    let drawn = 0;
    let done = false;
    const found: TimelineWindow[] = [];
    for await (const line of jsonLines<TimelineLine>(response)) {
      if (signal.aborted) return;
      if ("done" in line) done = true;
      else if ("start_s" in line) found.push(line);
      else this.problem = line.error.message;
      // Not at every line: a drawing costs more than a window.
      if (performance.now() - drawn < 120) continue;
      drawn = performance.now();
      this.windows = [...found];
    }
    this.windows = found;
    if (!done && this.problem === "") this.problem = "The answer broke off before its end; what came is shown.";
  }

  private get duration(): number {
    return Math.max(this.player?.duration ?? 0, this.windows.at(-1)?.end_s ?? 0) || 1;
  }

  private seek(to: number): void {
    this.now = to;
    this.player?.seek(to);
  }

  private save(): void {
    if (session.model === null || session.recording === null) return;
    const name = session.recording.name;
    const url = URL.createObjectURL(new Blob([csvOf(this.windows, name, session.model)], { type: "text/csv" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `${name.replace(/\.[^.]*$/, "").replaceAll(/[^\w.-]+/g, "_") || "timeline"}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  override render() {
    if (session.recording === null) {
      return html`<section class="card stack" aria-labelledby="title">
        <div>
          <h2 id="title">A long recording, window after window</h2>
          <p class="lead">See where which modality failed, and which one carried the answer.</p>
        </div>
        <dm-source></dm-source>
      </section>`;
    }
    return html`<div class="stack">
      <div class="top">
        <section class="card" aria-label="Recording">
          <dm-player
            @ready=${() => this.requestUpdate()}
            @moved=${() => {
              this.now = this.player?.media?.currentTime ?? this.now;
            }}
          ></dm-player>
        </section>
        <section class="card stack" aria-label="How it is judged">
          <div class="row settings">
            ${this.#number("Window, seconds", this.windowS, (value) => {
              this.windowS = value;
            })}
            ${this.#number("Step, seconds", this.hopS, (value) => {
              this.hopS = value;
            })}
            ${this.running
              ? html`<button
                  @click=${() => {
                    this.#work?.abort();
                    this.running = false;
                  }}
                >
                  Stop
                </button>`
              : html`<button class="main" @click=${this.judge}>Judge all of it</button>`}
          </div>
          <dm-source simple></dm-source>
        </section>
      </div>
      ${this.problem ? html`<p class="alert" role="alert">${this.problem}</p>` : nothing}
      <section class="card stack" aria-labelledby="lanes">
        <div class="row spread">
          <h2 id="lanes">Over time</h2>
          <span class="note" role="status">${this.#progress()}</span>
          <button ?disabled=${this.windows.length === 0} @click=${this.save}>Save as CSV</button>
        </div>
        ${this.windows.length === 0
          ? html`<p class="note">${this.running ? "The first window comes soon." : "Nothing is judged yet."}</p>`
          : html`<dm-lanes
                .windows=${this.windows}
                .modalities=${session.modalities}
                .duration=${this.duration}
                .now=${this.now}
                .step=${this.#step()}
                @seek=${(event: CustomEvent<number>) => this.seek(event.detail)}
              ></dm-lanes>
              ${this.#table()}`}
      </section>
    </div>`;
  }

  #step(): number {
    const [first, second] = this.windows;
    return first && second ? second.start_s - first.start_s : 1;
  }

  #progress(): string {
    const count = `${this.windows.length} window${this.windows.length === 1 ? "" : "s"}`;
    const failed = this.windows.filter((one) => one.prediction?.degraded || one.error).length;
    const words = this.windows.length === 0 ? "" : failed > 0 ? `${count}, ${failed} with a modality out` : `${count}, all complete`;
    return this.running ? `judging … ${count}` : words;
  }

  #number(name: string, value: number | null, set: (value: number | null) => void) {
    return html`<label
      >${name}<input
        type="number"
        min="0.05"
        step="0.05"
        placeholder=${session.model?.clip_s ?? ""}
        .value=${value === null ? "" : String(value)}
        @change=${(event: Event) => {
          const given = (event.target as HTMLInputElement).valueAsNumber;
          set(Number.isFinite(given) && given > 0 ? given : null);
        }}
    /></label>`;
  }

  #table() {
    return html`<details>
      <summary>The same as a table</summary>
      <div class="scroll tall" tabindex="0" role="region" aria-label="Windows">
        <table>
          <thead>
            <tr>
              <th scope="col">from</th>
              <th scope="col">to</th>
              <th scope="col">answer</th>
              ${session.modalities.map((name) => html`<th scope="col">${name}</th>`)}
            </tr>
          </thead>
          <tbody>
            ${this.windows.slice(0, ROWS).map((one) => this.#row(one))}
          </tbody>
        </table>
      </div>
      ${this.windows.length > ROWS ? html`<p class="note">The first ${ROWS}; the CSV has all.</p>` : nothing}
    </details>`;
  }

  #row({ start_s, end_s, prediction, error }: TimelineWindow) {
    return html`<tr>
      <td>${clock(start_s)}</td>
      <td>${clock(end_s)}</td>
      <td class="wrap">${prediction ? `${prediction.label} (${percent(prediction.probability)})` : error?.message}</td>
      ${session.modalities.map((name) => {
        const own = prediction?.modalities[name];
        const status = own ?? error?.modalities?.[name];
        return html`<td class="wrap">
          ${own?.label
            ? `${own.label}, certainty ${percent(own.certainty)}, weight ${percent(own.weight)}`
            : status
              ? phrase(status.status, status.reason)
              : nothing}
        </td>`;
      })}
    </tr>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-timeline": Timeline;
  }
}
