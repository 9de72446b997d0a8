/** Try: a recording in, and what each modality believes out. */
import { LitElement, html, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { ApiError, api, messageOf } from "../api/client";
import type { ErrorDetail, Inputs, Prediction } from "../api/types";
import { shared } from "../look/shared";
import type { Player } from "../parts/player";
import type { Range } from "../parts/stretch";
import { SessionWatch, session } from "../session";
import { pill } from "./answer";
import { styles } from "./styles";
import { NOTHING, type WhatIf, changes, fieldsOf } from "./switches";
import { timings } from "./timings";
import "../parts/player";
import "../parts/source";
import "../parts/stretch";
import "./answer";
import "./copy";
import "./seen";
import "./switches";
import "./why";

/** Fields that this server refused once: an older one, or one whose settings do not allow them. */
const refusedFields = new Map<string, string>();

@customElement("dm-try")
export class Try extends LitElement {
  static override styles = [shared, styles];

  @state() private answer: Prediction | null = null;
  @state() private baseline: Prediction | null = null;
  @state() private inputs: Inputs | null = null;
  @state() private error: ErrorDetail | null = null;
  @state() private what: WhatIf = NOTHING;
  /** Chosen by a person; null: the whole recording, of which the server takes the middle. */
  @state() private range: Range | null = null;
  @state() private busy = false;
  @state() private occluding = false;
  @state() private inputsRefused = "";
  @state() private now = 0;
  @query("dm-player") private readonly player?: Player | null;
  #work: AbortController | null = null;
  #recording = session.recording;
  #model = session.model;

  constructor() {
    super();
    new SessionWatch(this, () => {
      if (session.recording !== this.#recording) {
        this.#recording = session.recording;
        this.range = null;
        this.what = NOTHING;
        this.baseline = this.answer = this.inputs = null;
      } else if (session.model === this.#model) return;
      this.#model = session.model;
      this.what = NOTHING;
      void this.judge();
    });
  }

  /** Fields of the call, without those that the server refuses. */
  private fields(what: WhatIf, explain: "" | "shapley" | "occlusion" = "shapley"): Record<string, string> {
    const all: Record<string, string> = {
      ...(this.range ? { start_s: this.range.start.toFixed(3), end_s: this.range.end.toFixed(3) } : {}),
      ...fieldsOf(what, session.modalities),
      ...(explain ? { explain } : {}),
    };
    for (const name of refusedFields.keys()) delete all[name];
    return all;
  }

  private async predict(what: WhatIf, signal: AbortSignal, explain?: "occlusion"): Promise<Prediction> {
    try {
      return await api.predict(session.form(this.fields(what, explain)), signal);
    } catch (error) {
      const field = error instanceof ApiError ? (error.detail.field ?? "") : "";
      const optional = explain === undefined && (field === "explain" || field === "damage");
      if (!optional || refusedFields.has(field)) throw error;
      refusedFields.set(field, messageOf(error));
      return this.predict(what, signal);
    }
  }

  /** Ask for the answer, and for the one to the recording as it is where something is changed. */
  private async judge(): Promise<void> {
    this.#work?.abort();
    if (session.recording === null || session.model === null) return;
    const work = new AbortController();
    this.#work = work;
    this.busy = true;
    const changed = changes(this.what);
    try {
      if (!changed) {
        this.answer = await this.predict(NOTHING, work.signal);
        this.baseline = null;
      } else {
        const baseline = this.baseline ?? this.answer ?? (await this.predict(NOTHING, work.signal));
        this.answer = await this.predict(this.what, work.signal);
        this.baseline = baseline;
      }
      this.error = null;
    } catch (error) {
      if (work.signal.aborted) return;
      this.answer = null;
      this.error = error instanceof ApiError ? error.detail : { code: "page", message: messageOf(error) };
    }
    if (work.signal.aborted) return;
    this.busy = false;
    await this.see(work.signal);
  }

  private async see(signal: AbortSignal): Promise<void> {
    if (this.inputsRefused) return;
    try {
      const { explain: _, ...fields } = this.fields(this.what);
      this.inputs = await api.inputs(session.form(fields), signal).catch((error: unknown) => {
        if (!(error instanceof ApiError) || error.detail.field !== "damage") throw error;
        delete fields["damage"];
        return api.inputs(session.form(fields), signal);
      });
    } catch (error) {
      if (signal.aborted) return;
      this.inputs = null;
      if (error instanceof ApiError && error.absent) {
        this.inputsRefused = "This server does not show what its encoders saw: it has no /v1/inputs.";
      } else if (error instanceof ApiError && (error.status === 501 || error.status === 403 || error.status === 404)) {
        this.inputsRefused = messageOf(error);
      }
    }
  }

  private async occlude(): Promise<void> {
    const { signal } = (this.#work ??= new AbortController());
    this.occluding = true;
    try {
      this.answer = await this.predict(this.what, signal, "occlusion");
    } catch (error) {
      if (error instanceof ApiError && error.detail.field === "explain") refusedFields.set("occlusion", error.message);
      else if (!signal.aborted) this.error = error instanceof ApiError ? error.detail : null;
    }
    this.occluding = false;
  }

  private get duration(): number {
    return this.player?.duration ?? this.inputs?.duration_s ?? this.answer?.end_s ?? 1;
  }

  override render() {
    if (session.recording === null) return this.#welcome();
    const whole = { start: 0, end: this.duration };
    const judged = this.answer ?? this.baseline;
    const range =
      this.range ?? (judged === null ? whole : { start: judged.start_s ?? 0, end: judged.end_s ?? this.duration });
    const timed = session.recording.kind !== "image" && (judged === null || judged.end_s !== null);
    return html`<div class="columns">
      <div class="stack side">
        <section class="card stack first" aria-label="Recording">
          <dm-player
            @ready=${() => this.requestUpdate()}
            @moved=${() => {
              this.now = this.player?.media?.currentTime ?? 0;
            }}
          ></dm-player>
          ${timed
            ? html`<dm-stretch
                .duration=${this.duration}
                .range=${range}
                .now=${this.now}
                @chosen=${(event: CustomEvent<Range>) => {
                  this.range = event.detail;
                  this.baseline = this.answer = null;
                  void this.judge();
                }}
              ></dm-stretch>`
            : nothing}
          ${timed
            ? html`<div class="row">
                <button @click=${() => void this.player?.play(range.start, range.end).catch(() => undefined)}>
                  Play what was judged
                </button>
                ${this.range === null
                  ? nothing
                  : html`<button
                      class="quiet"
                      @click=${() => {
                        this.range = null;
                        this.baseline = this.answer = null;
                        void this.judge();
                      }}
                    >
                      Let the server choose
                    </button>`}
              </div>`
            : nothing}
        </section>
        <dm-switches
          class="third"
          .what=${this.what}
          .modalities=${session.model?.modalities ?? []}
          .refused=${refusedFields.get("damage") ?? ""}
          @changed=${(event: CustomEvent<WhatIf>) => {
            this.what = event.detail;
            void this.judge();
          }}
        ></dm-switches>
        <section class="card last" aria-label="Another recording"><dm-source></dm-source></section>
      </div>
      <div class="stack" aria-busy=${this.busy}>
        <p class="hidden" role="status">${this.#status()}</p>
        ${this.#result()}
      </div>
    </div>`;
  }

  #status(): string {
    if (this.busy) return "Judging";
    if (this.error) return "";
    return this.answer ? `Answer: ${this.answer.label}` : "";
  }

  #welcome() {
    return html`<div class="welcome stack">
      <div class="hero">
        <h2>See what each modality believes</h2>
        <p class="lead">
          Drop a recording: sound and picture are judged apart, weighed, and fused. Then take one away, and see what
          becomes of the answer.
        </p>
      </div>
      <section class="card" aria-label="Recording"><dm-source></dm-source></section>
    </div>`;
  }

  #result() {
    const seen = this.inputs
      ? html`<dm-seen .inputs=${this.inputs} .modalities=${session.modalities} @seek=${this.#seek}></dm-seen>`
      : this.inputsRefused
        ? html`<p class="note">${this.inputsRefused}</p>`
        : nothing;
    if (this.error !== null) return [this.#refused(this.error), seen];
    if (this.answer === null) return html`<div class="card waiting busy second"><span>Judging …</span></div>`;
    const { explanation, timings_ms } = this.answer;
    return html`
      <dm-answer class="second ${this.busy ? "busy" : ""}" .answer=${this.answer} .baseline=${this.baseline}></dm-answer>
      ${explanation
        ? html`<dm-why
            .explanation=${explanation}
            .modalities=${session.modalities}
            .busy=${this.occluding}
            .refused=${refusedFields.get("occlusion") ?? ""}
            @occlude=${this.occlude}
            @seek=${this.#seek}
          ></dm-why>`
        : refusedFields.has("explain")
          ? html`<p class="note">Why is not shown: ${refusedFields.get("explain")}</p>`
          : nothing}
      ${seen} ${timings_ms ? timings(timings_ms) : nothing}
      <dm-copy .fields=${this.fields(this.what, "")}></dm-copy>
    `;
  }

  #refused(error: ErrorDetail) {
    return html`<section class="card stack second" role="alert">
      <h2>No answer</h2>
      <p class="alert">${error.message}</p>
      ${error.modalities
        ? html`<ul class="fates">
            ${Object.entries(error.modalities).map(
              ([name, own]) => html`<li class="row">
                <b class="wrap">${name}</b> ${pill(own)}
                ${own.detail ? html`<span class="note wrap">${own.detail}</span>` : nothing}
              </li>`,
            )}
          </ul>`
        : nothing}
      ${error.request_id ? html`<p class="note">Request ${error.request_id}; the server's log has it too.</p>` : nothing}
    </section>`;
  }

  readonly #seek = (event: CustomEvent<number>): void => this.player?.seek(event.detail);
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-try": Try;
  }
}
