/** Sound as the encoder got it: its wave and its spectrogram, in the modality's colour. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, property, query } from "lit/decorators.js";
import type { Picture, Seen } from "../api/types";
import { seconds } from "../look/format";
import { channels, resolved } from "../look/palette";
import { shared } from "../look/shared";

const ROWS = 12;

@customElement("dm-spectrogram")
export class Spectrogram extends LitElement {
  static override styles = [
    shared,
    css`
      .pictures {
        display: grid;
        gap: 4px;
      }
      canvas {
        display: block;
        width: 100%;
        border-radius: 8px;
        background: var(--raised);
      }
      .wave {
        height: 48px;
      }
      .bands {
        height: 120px;
      }
    `,
  ];

  @property() name = "";
  @property({ attribute: false }) seen!: Seen;
  @property({ type: Number }) start = 0;
  @query(".wave") private readonly wave?: HTMLCanvasElement | null;
  @query(".bands") private readonly bands?: HTMLCanvasElement | null;
  readonly #again = (): void => void this.#draw();

  override connectedCallback(): void {
    super.connectedCallback();
    window.addEventListener("dm-theme", this.#again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.#again);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    window.removeEventListener("dm-theme", this.#again);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.#again);
  }

  override updated(): void {
    void this.#draw();
  }

  async #draw(): Promise<void> {
    const own = resolved(this, "--own");
    if (this.wave && this.seen.peaks) drawWave(this.wave, this.seen.peaks, own);
    if (this.bands && this.seen.spectrogram) await drawBands(this.bands, this.seen.spectrogram, own);
  }

  override render() {
    const { seen } = this;
    const length = seen.seconds ?? 0;
    return html`<div class="pictures">
        ${seen.peaks
          ? html`<canvas class="wave" role="img" aria-label="${this.name}: the sound's wave; the table has numbers"></canvas>`
          : nothing}
        ${seen.spectrogram
          ? html`<canvas class="bands" role="img" aria-label="${this.name}: spectrogram, low tones at the bottom"></canvas>`
          : nothing}
        <div class="row spread note num">
          <span>${seconds(this.start)}</span>
          <span>${seen.spectrogram?.max_hz ? `0 to ${(seen.spectrogram.max_hz / 1000).toFixed(1)} kHz` : nothing}</span>
          <span>${seconds(this.start + length)}</span>
        </div>
      </div>
      ${seen.peaks
        ? html`<details>
            <summary>The same as a table</summary>
            <div class="scroll">
              <table>
                <thead>
                  <tr>
                    <th scope="col">from</th>
                    <th scope="col">loudest, of full scale</th>
                  </tr>
                </thead>
                <tbody>
                  ${loudest(seen.peaks).map(
                    (value, place) => html`<tr>
                      <td>${seconds(this.start + (place * length) / ROWS)}</td>
                      <td>${value.toFixed(3)}</td>
                    </tr>`,
                  )}
                </tbody>
              </table>
            </div>
          </details>`
        : nothing}`;
  }
}

function loudest(peaks: readonly [number, number][]): number[] {
  return Array.from({ length: ROWS }, (_, row) => {
    const part = peaks.slice(Math.floor((row * peaks.length) / ROWS), Math.ceil(((row + 1) * peaks.length) / ROWS));
    return Math.max(0, ...part.map(([low, high]) => Math.max(Math.abs(low), Math.abs(high))));
  });
}

/** Give a canvas as many pixels as the screen has there. */
function sized(canvas: HTMLCanvasElement): CanvasRenderingContext2D | null {
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  return canvas.getContext("2d");
}

function drawWave(canvas: HTMLCanvasElement, peaks: readonly [number, number][], colour: string): void {
  const context = sized(canvas);
  if (context === null) return;
  const { width, height } = canvas;
  const most = Math.max(0.05, ...peaks.map(([low, high]) => Math.max(Math.abs(low), Math.abs(high))));
  context.fillStyle = colour;
  peaks.forEach(([low, high], place) => {
    const x = (place / peaks.length) * width;
    const top = height / 2 - (high / most) * (height / 2 - 2);
    const bottom = height / 2 - (low / most) * (height / 2 - 2);
    context.fillRect(x, top, Math.max(1, width / peaks.length), Math.max(1, bottom - top));
  });
}

async function drawBands(canvas: HTMLCanvasElement, picture: Picture, colour: string): Promise<void> {
  const bytes = Uint8Array.from(atob(picture.png), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const own = new OffscreenCanvas(bitmap.width, bitmap.height);
  const inner = own.getContext("2d");
  const outer = sized(canvas);
  if (inner === null || outer === null) return;
  inner.drawImage(bitmap, 0, 0);
  const pixels = inner.getImageData(0, 0, own.width, own.height);
  // From black over the modality's colour to white.
  const middle = channels(colour);
  for (let place = 0; place < pixels.data.length; place += 4) {
    const share = (pixels.data[place] ?? 0) / 255;
    for (let channel = 0; channel < 3; channel += 1) {
      const tone = middle[channel] ?? 0;
      pixels.data[place + channel] = share < 0.6 ? (12 + (tone - 12) * (share / 0.6)) : tone + (255 - tone) * ((share - 0.6) / 0.4);
    }
  }
  inner.putImageData(pixels, 0, 0);
  outer.imageSmoothingEnabled = true;
  outer.drawImage(own, 0, 0, canvas.width, canvas.height);
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-spectrogram": Spectrogram;
  }
}
