/** Lines over the last hour, drawn by uPlot; the values under the pointer stand in the legend, all of them in a table. */
import { LitElement, type PropertyValues, css, html, unsafeCSS } from "lit";
import { customElement, property, query } from "lit/decorators.js";
import uPlot from "uplot";
import plotStyles from "uplot/dist/uPlot.min.css?inline";
import type { Series } from "../api/types";
import { resolved } from "../look/palette";
import { shared } from "../look/shared";

export interface Line {
  name: string;
  values: Series;
  /** A custom property, such as `--c0`. */
  colour: string;
  dash?: number[];
}

const ROWS = 60;
const HEIGHT = 168;
const LEAST_S = 300;
const now = (): number => Date.now() / 1000;

@customElement("dm-chart")
export class Chart extends LitElement {
  static override styles = [
    unsafeCSS(plotStyles),
    shared,
    css`
      .plot {
        min-height: 194px;
        min-width: 0;
        overflow: hidden;
      }
      .uplot {
        font: inherit;
        width: 100%;
      }
      .u-legend {
        font-size: 12.5px;
        text-align: left;
        color: var(--soft);
        width: auto;
      }
      .u-legend tr:last-child td,
      .u-legend th,
      .u-legend td {
        border: 0;
        padding: 2px 0;
        color: inherit;
      }
      .u-legend .u-value {
        color: var(--ink);
        margin-left: 3px;
      }
      .u-select {
        background: var(--shade);
      }
      h3 {
        margin-bottom: 6px;
      }
    `,
  ];

  @property() name = "";
  @property({ attribute: false }) times: number[] = [];
  @property({ attribute: false }) lines: Line[] = [];
  /** The axis's upper end, where it has one, such as 1 for shares. */
  @property({ type: Number }) most: number | null = null;
  /** As far as the axis goes at least, where values are small. */
  @property({ type: Number }) least = 1;
  @property({ attribute: false }) words: (value: number) => string = String;
  /** A line across, such as a threshold. */
  @property({ attribute: false }) mark: number | null = null;
  @query(".plot") private readonly place!: HTMLElement;
  #plot: uPlot | null = null;
  #shape = "";
  #sizes = new ResizeObserver(() => this.#resize());
  readonly #again = (): void => this.#draw(true);

  override connectedCallback(): void {
    super.connectedCallback();
    window.addEventListener("dm-theme", this.#again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.#again);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#sizes.disconnect();
    this.#plot?.destroy();
    this.#plot = null;
    window.removeEventListener("dm-theme", this.#again);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.#again);
  }

  override firstUpdated(): void {
    this.#sizes.observe(this.place);
  }

  override updated(changed: PropertyValues<this>): void {
    if (changed.has("lines") || changed.has("times")) this.#draw(false);
  }

  #resize(): void {
    const width = this.place.clientWidth;
    if (width > 0 && this.#plot === null) this.#draw(true);
    else if (width > 0 && this.#plot?.width !== width) this.#plot?.setSize({ width, height: HEIGHT });
  }

  #draw(anew: boolean): void {
    if (!this.place || this.place.clientWidth === 0) return;
    const data = [this.times, ...this.lines.map((one) => one.values)] as uPlot.AlignedData;
    const shape = this.lines.map((one) => one.name + one.colour).join("\n");
    if (this.#plot !== null && !anew && shape === this.#shape) {
      this.#plot.setData(data);
      this.#showLast();
      return;
    }
    this.#shape = shape;
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#options(), data, this.place);
    this.#showLast();
  }

  /** While nobody points, the legend has the last values. */
  #showLast(): void {
    if (this.#plot && this.#plot.cursor.idx === null) this.#plot.setLegend({ idx: this.times.length - 1 });
  }

  #options(): uPlot.Options {
    const soft = resolved(this, "--soft");
    const faint = resolved(this, "--faint");
    const bad = resolved(this, "--bad");
    const axis = { stroke: soft, grid: { stroke: faint, width: 1 }, ticks: { show: false }, font: "11px system-ui", size: 28 };
    const { most, mark } = this;
    return {
      width: this.place.clientWidth,
      height: HEIGHT,
      padding: [8, 22, 0, 0],
      // One moment in all charts: what else was so, then?
      cursor: { points: { size: 6 }, drag: { x: false, y: false }, sync: { key: "hour" } },
      scales: {
        // Not less than some minutes: the first samples are no hour.
        x: { range: (_, first, last) => [Math.min(first ?? Infinity, (last ?? now()) - LEAST_S), last ?? now()] },
        y: { range: (_, low, high) => [Math.min(0, low ?? 0), most ?? Math.max(high ?? 0, mark ?? 0, this.least) * 1.08] },
      },
      axes: [
        { ...axis, values: (_, splits) => splits.map((at) => hour(at)) },
        { ...axis, size: 54, values: (_, splits) => splits.map((value) => this.words(value)) },
      ],
      series: [
        { label: "at", value: (_, at) => (at === null ? "–" : hour(at, true)) },
        ...this.lines.map((one) => ({
          label: one.name,
          stroke: resolved(this, one.colour),
          width: 1.8,
          dash: one.dash ?? [],
          value: (_: uPlot, value: number | null) => (value === null ? "–" : this.words(value)),
        })),
      ],
      hooks: {
        setCursor: [(plot) => plot.cursor.idx === null && this.#showLast()],
        draw: [
          (plot) => {
            if (mark === null) return;
            const y = plot.valToPos(mark, "y", true);
            plot.ctx.save();
            plot.ctx.strokeStyle = bad;
            plot.ctx.setLineDash([5, 5]);
            plot.ctx.beginPath();
            plot.ctx.moveTo(plot.bbox.left, y);
            plot.ctx.lineTo(plot.bbox.left + plot.bbox.width, y);
            plot.ctx.stroke();
            plot.ctx.restore();
          },
        ],
      },
    };
  }

  override render() {
    const first = Math.max(0, this.times.length - ROWS);
    return html`<h3>${this.name}</h3>
      <div class="plot" role="img" aria-label="${this.name} over the last hour; the table has the numbers"></div>
      <details>
        <summary>The last minutes as a table</summary>
        <div class="scroll tall" tabindex="0" role="region" aria-label="${this.name}">
          <table>
            <thead>
              <tr>
                <th scope="col">at</th>
                ${this.lines.map((one) => html`<th scope="col">${one.name}</th>`)}
              </tr>
            </thead>
            <tbody>
              ${this.times.slice(first).map(
                (at, place) => html`<tr>
                  <td>${hour(at, true)}</td>
                  ${this.lines.map((one) => {
                    const value = one.values[first + place];
                    return html`<td>${value === null || value === undefined ? "–" : this.words(value)}</td>`;
                  })}
                </tr>`,
              )}
            </tbody>
          </table>
        </div>
      </details>`;
  }
}

function hour(at: number, exact = false): string {
  return new Date(at * 1000).toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
    ...(exact ? { second: "2-digit" } : {}),
  });
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-chart": Chart;
  }
}
