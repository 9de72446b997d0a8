/** A series as the encoder got it: the outline of each channel, with holes where values are missing. */
import { LitElement, css, html, nothing, svg } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { Channel } from "../api/types";
import { shared } from "../look/shared";

const WIDTH = 400;
const HEIGHT = 40;

/** One stroke for each stretch without a missing value, up along the least and back along the largest. */
export function outlines(peaks: Channel["peaks"]): string {
  const known = peaks.filter((pair) => pair !== null);
  const low = Math.min(...known.map(([least]) => least));
  const span = Math.max(...known.map(([, most]) => most)) - low;
  const place = (value: number) => (span > 0 ? (HEIGHT - 2) * (1 - (value - low) / span) + 1 : HEIGHT / 2).toFixed(1);
  const step = WIDTH / Math.max(1, peaks.length);
  return peaks
    .map((pair, index) =>
      pair === null
        ? ""
        : `${index > 0 && peaks[index - 1] !== null ? "L" : "M"}${(index * step).toFixed(1)} ${place(pair[0])}L${((index + 0.5) * step).toFixed(1)} ${place(pair[1])}`,
    )
    .join("");
}

@customElement("dm-channels")
export class Channels extends LitElement {
  static override styles = [
    shared,
    css`
      .channel {
        display: grid;
        grid-template-columns: 7rem 1fr;
        align-items: center;
        gap: 8px;
      }
      svg {
        display: block;
        width: 100%;
        height: 40px;
        border-radius: 8px;
        background: var(--raised);
      }
      path {
        fill: none;
        stroke: var(--own, currentColor);
        stroke-width: 1.2;
        vector-effect: non-scaling-stroke;
      }
    `,
  ];

  @property() name = "";
  @property({ attribute: false }) channels: Channel[] = [];
  @property({ type: Number }) count = 0;

  override render() {
    const left = this.count - this.channels.length;
    return html`${this.channels.map((one) => {
      const unit = one.unit ? ` (${one.unit})` : "";
      return html`<div class="channel">
        <span class="note wrap">${one.name}${unit}</span>
        <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${this.name}: ${one.name}${unit}">
          ${one.peaks.some((pair) => pair !== null) ? svg`<path d=${outlines(one.peaks)} />` : nothing}
        </svg>
      </div>`;
    })}
    ${left > 0 ? html`<p class="note">and ${left} more</p>` : nothing}`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-channels": Channels;
  }
}
