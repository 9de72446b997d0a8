/** Lanes over time: the answer, the weights, and each modality's certainty; click, drag or arrow keys move the player. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { TimelineWindow } from "../api/types";
import { clock, percent, phrase } from "../look/format";
import { colourClass } from "../look/palette";
import { placed } from "../look/placed";
import { shared } from "../look/shared";
import { drawAnswers, drawModality, drawWeights } from "./drawing";

@customElement("dm-lanes")
export class Lanes extends LitElement {
  static override styles = [
    shared,
    css`
      .lanes {
        position: relative;
        display: grid;
        gap: 14px;
        touch-action: pan-y;
        cursor: crosshair;
        border-radius: 8px;
      }
      .head {
        display: flex;
        gap: 4px 10px;
        align-items: baseline;
        flex-wrap: wrap;
        font-size: 13.5px;
        margin-bottom: 4px;
      }
      .head b {
        font-weight: 600;
        overflow-wrap: anywhere;
      }
      .head .dot {
        align-self: center;
      }
      canvas {
        display: block;
        width: 100%;
        height: 46px;
        border-radius: 6px;
        background: var(--raised);
      }
      .answer canvas {
        height: 30px;
      }
      .track {
        position: relative;
      }
      .playhead {
        position: absolute;
        top: -3px;
        bottom: -3px;
        border-radius: 1px;
        width: 2px;
        margin-left: -1px;
        background: var(--ink);
        pointer-events: none;
      }
      .scale {
        margin-top: 6px;
      }
    `,
  ];

  @property({ attribute: false }) windows: readonly TimelineWindow[] = [];
  @property({ attribute: false }) modalities: readonly string[] = [];
  @property({ type: Number }) duration = 1;
  @property({ type: Number }) now = 0;
  /** Seconds that an arrow key moves. */
  @property({ type: Number }) step = 1;
  #drawn = { windows: -1, width: -1, duration: -1 };
  #sizes = new ResizeObserver(() => this.#draw());
  readonly #again = (): void => this.#draw(true);

  override connectedCallback(): void {
    super.connectedCallback();
    this.#sizes.observe(this);
    window.addEventListener("dm-theme", this.#again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.#again);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#sizes.disconnect();
    window.removeEventListener("dm-theme", this.#again);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.#again);
  }

  override updated(): void {
    this.#draw();
  }

  /** Draw where something has changed that a canvas shows; the playhead is none of it. */
  #draw(force = false): void {
    const now = { windows: this.windows.length, width: this.clientWidth, duration: this.duration };
    const same = Object.entries(now).every(([name, value]) => this.#drawn[name as keyof typeof now] === value);
    if ((same && !force) || now.width === 0) return;
    this.#drawn = now;
    for (const canvas of this.renderRoot.querySelectorAll("canvas")) {
      const lane = canvas.dataset["lane"] ?? "";
      if (lane === "answer") drawAnswers(canvas, this.windows, this.duration);
      else if (lane === "weights") drawWeights(canvas, this.windows, this.duration, this.modalities);
      else drawModality(canvas, this.windows, this.duration, this.modalities[Number(lane)] ?? "");
    }
  }

  /** The last window that begins at or before a moment and holds it. */
  private at(moment: number): TimelineWindow | undefined {
    return this.windows.findLast((one) => one.start_s <= moment + 1e-6 && moment < one.end_s + 1e-6);
  }

  private move(to: number): void {
    const moment = Math.max(0, Math.min(this.duration, to));
    this.dispatchEvent(new CustomEvent<number>("seek", { detail: moment }));
  }

  private keys(event: KeyboardEvent): void {
    const moves: Record<string, number> = {
      ArrowRight: this.now + this.step,
      ArrowUp: this.now + this.step,
      ArrowLeft: this.now - this.step,
      ArrowDown: this.now - this.step,
      PageUp: this.now + 10 * this.step,
      PageDown: this.now - 10 * this.step,
      Home: 0,
      End: this.duration,
    };
    const to = moves[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.move(to);
  }

  private point(event: PointerEvent): void {
    if (event.type === "pointerdown") {
      if (event.button !== 0) return;
      (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    } else if ((event.buttons & 1) === 0) return;
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    this.move(((event.clientX - box.left) / box.width) * this.duration);
  }

  override render() {
    const here = this.at(this.now);
    const answer = here?.prediction;
    const words = answer ? `${answer.label}, ${percent(answer.probability)}` : (here?.error?.message ?? "not judged yet");
    return html`<div
        class="lanes"
        role="slider"
        tabindex="0"
        aria-label="Place in the recording"
        aria-valuemin="0"
        aria-valuemax=${this.duration.toFixed(2)}
        aria-valuenow=${this.now.toFixed(2)}
        aria-valuetext="${clock(this.now)}: ${words}"
        @keydown=${this.keys}
        @pointerdown=${this.point}
        @pointermove=${this.point}
      >
        <div class="answer">
          <div class="head">
            <b>Answer</b><span class="note">${clock(this.now)}</span><span class="wrap">${words}</span>
            ${answer?.degraded ? html`<span class="pill warn">degraded</span>` : nothing}
          </div>
          ${this.track("answer")}
        </div>
        <div>
          <div class="head"><b>Weights</b><span class="note">how much each counted</span></div>
          ${this.track("weights")}
        </div>
        ${this.modalities.map((name, place) => this.lane(name, place, here))}
      </div>
      <div class="scale row spread note num"><span>0:00.0</span><span>${clock(this.duration)}</span></div>`;
  }

  private lane(name: string, place: number, here: TimelineWindow | undefined) {
    const own = here?.prediction?.modalities[name];
    const status = own ?? here?.error?.modalities?.[name];
    return html`<div class=${colourClass(name, this.modalities)}>
      <div class="head">
        <span class="dot ${colourClass(name, this.modalities)}"></span><b>${name}</b>
        ${own?.label
          ? html`<span class="wrap">says ${own.label}</span
              ><span class="note num">certainty ${percent(own.certainty)}, weight ${percent(own.weight)}</span>`
          : status
            ? html`<span class="pill bad">${phrase(status.status, status.reason)}</span>`
            : nothing}
      </div>
      ${this.track(String(place))}
    </div>`;
  }

  private track(lane: string) {
    const left = `${(100 * Math.min(this.now, this.duration)) / this.duration}%`;
    return html`<div class="track">
      <canvas data-lane=${lane} aria-hidden="true"></canvas>
      <div class="playhead" ${placed({ left })}></div>
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-lanes": Lanes;
  }
}
