/** A stretch of a recording, marked on a line: drag its ends or the whole of it, or use the arrow keys on either end. */
import { LitElement, css, html } from "lit";
import { customElement, property } from "lit/decorators.js";
import { placed } from "../look/placed";
import { clock, seconds } from "../look/format";
import { shared } from "../look/shared";

export interface Range {
  start: number;
  end: number;
}

const SHORTEST_S = 0.05;

@customElement("dm-stretch")
export class Stretch extends LitElement {
  static override styles = [
    shared,
    css`
      .line {
        position: relative;
        height: 34px;
        border-radius: 8px;
        background: var(--faint);
        touch-action: none;
      }
      .line > * {
        position: absolute;
      }
      .judged {
        top: 0;
        bottom: 0;
        border-radius: 8px;
        background: color-mix(in srgb, var(--ink) 16%, transparent);
        border-inline: 3px solid var(--ink);
        cursor: grab;
      }
      .now {
        top: -3px;
        bottom: -3px;
        width: 2px;
        background: var(--ink);
        pointer-events: none;
      }
      input[type="range"] {
        inset: 0;
        height: 100%;
        appearance: none;
        background: none;
        pointer-events: none;
      }
      input::-webkit-slider-thumb {
        appearance: none;
        pointer-events: auto;
        width: 16px;
        height: 34px;
        border-radius: 6px;
        background: var(--ink);
        border: 3px solid var(--card);
        cursor: ew-resize;
      }
      input::-moz-range-thumb {
        pointer-events: auto;
        width: 10px;
        height: 28px;
        border-radius: 6px;
        background: var(--ink);
        border: 3px solid var(--card);
        cursor: ew-resize;
      }
      .words {
        margin-top: 6px;
      }
    `,
  ];

  @property({ type: Number }) duration = 1;
  @property({ attribute: false }) range: Range = { start: 0, end: 1 };
  @property({ type: Number }) now = 0;
  #grip: { at: number; range: Range } | null = null;

  private set(range: Range, done: boolean): void {
    this.range = range;
    this.dispatchEvent(new CustomEvent<Range>(done ? "chosen" : "moving", { detail: range }));
  }

  private end(which: "start" | "end", event: Event, done: boolean): void {
    const value = Number((event.target as HTMLInputElement).value);
    const { start, end } = this.range;
    const range =
      which === "start"
        ? { start: Math.min(value, end - SHORTEST_S), end }
        : { start, end: Math.max(value, start + SHORTEST_S) };
    this.set({ start: Math.max(0, range.start), end: Math.min(this.duration, range.end) }, done);
    // The thumb goes where it may.
    (event.target as HTMLInputElement).value = String(this.range[which]);
  }

  private grab(event: PointerEvent): void {
    this.#grip = { at: event.clientX, range: this.range };
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
  }

  private drag(event: PointerEvent): void {
    if (this.#grip === null) return;
    const width = this.renderRoot.querySelector(".line")?.clientWidth ?? 1;
    const { start, end } = this.#grip.range;
    const wanted = ((event.clientX - this.#grip.at) / width) * this.duration;
    const shift = Math.max(-start, Math.min(this.duration - end, wanted));
    this.set({ start: start + shift, end: end + shift }, false);
  }

  private drop(): void {
    if (this.#grip === null) return;
    const moved = this.#grip.range.start !== this.range.start;
    this.#grip = null;
    if (moved) this.set(this.range, true);
  }

  override render() {
    const { start, end } = this.range;
    const at = (value: number): string => `${(100 * value) / this.duration}%`;
    const slider = (which: "start" | "end", value: number) => html`<input
      type="range"
      min="0"
      max=${this.duration}
      step="0.05"
      .value=${String(value)}
      aria-label=${which === "start" ? "Start of the judged stretch" : "End of the judged stretch"}
      aria-valuetext=${seconds(value)}
      @input=${(event: Event) => this.end(which, event, false)}
      @change=${(event: Event) => this.end(which, event, true)}
    />`;
    return html`<div class="line">
        <div
          class="judged"
          ${placed({ left: at(start), width: at(end - start) })}
          @pointerdown=${this.grab}
          @pointermove=${this.drag}
          @pointerup=${this.drop}
          @pointercancel=${this.drop}
        ></div>
        <div class="now" ${placed({ left: at(Math.min(this.now, this.duration)) })}></div>
        ${slider("start", start)} ${slider("end", end)}
      </div>
      <div class="words note row spread num">
        <span>Judged: ${clock(start)} to ${clock(end)} (${seconds(end - start)})</span>
        <span>of ${clock(this.duration)}</span>
      </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-stretch": Stretch;
  }
}
