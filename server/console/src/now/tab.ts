/** Now: the last hour of this server, from its own metrics; asks only while somebody looks. */
import { LitElement, type PropertyValues, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { ApiError, api, messageOf } from "../api/client";
import type { Alert, Now as Hour, NowHead, Series } from "../api/types";
import { milliseconds, percent } from "../look/format";
import { colourClass } from "../look/palette";
import { shared } from "../look/shared";
import { SessionWatch, session } from "../session";
import { accuracyCard } from "./accuracy";
import type { Line } from "./chart";
import "./chart";

/** By dashes, since colours are the modalities'. */
const STAGES: Record<string, { colour: string; dash?: number[] }> = {
  queue: { colour: "--control", dash: [2, 3] },
  decode: { colour: "--soft", dash: [8, 4] },
  encode: { colour: "--soft" },
  fuse: { colour: "--control", dash: [10, 3, 2, 3] },
  total: { colour: "--ink" },
};

@customElement("dm-now")
export class Now extends LitElement {
  static override styles = [
    shared,
    css`
      .tiles {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(136px, 1fr));
        gap: 12px;
      }
      .tile {
        background: var(--card);
        border: 1px solid var(--edge);
        border-radius: var(--radius);
        padding: 14px 16px;
      }
      .tile b {
        display: block;
        font-size: 25px;
        line-height: 1.25;
        font-weight: 620;
        letter-spacing: -0.02em;
        font-variant-numeric: tabular-nums;
      }
      .tile span {
        color: var(--soft);
        font-size: 13px;
      }
      .charts {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
        gap: var(--gap);
        align-items: start;
      }
      .alerts {
        display: grid;
        gap: 10px;
      }
      .alerts li {
        border-left: 4px solid var(--warn);
        background: var(--warn-back);
        border-radius: 10px;
        padding: 10px 14px;
        display: grid;
        gap: 3px;
      }
      .alerts li.critical {
        border-left-color: var(--bad);
        background: var(--bad-back);
      }
      .alerts .note {
        color: var(--ink);
      }
      .states {
        display: flex;
        flex-wrap: wrap;
        gap: 6px;
      }
    `,
  ];

  /** Whether this tab is the one that is shown. */
  @property({ type: Boolean }) on = false;
  @state() private hour: Hour | null = null;
  @state() private problem = "";
  #timer = 0;
  #work: AbortController | null = null;
  readonly #visibility = (): void => this.#pace();

  constructor() {
    super();
    new SessionWatch(this);
  }

  override connectedCallback(): void {
    super.connectedCallback();
    document.addEventListener("visibilitychange", this.#visibility);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    document.removeEventListener("visibilitychange", this.#visibility);
    this.on = false;
    this.#pace();
  }

  override updated(changed: PropertyValues<this>): void {
    if (changed.has("on")) this.#pace();
  }

  /** Ask now and again while it is looked at, and not at all otherwise. */
  #pace(): void {
    window.clearTimeout(this.#timer);
    this.#work?.abort();
    if (this.on && !document.hidden) void this.#ask();
  }

  async #ask(): Promise<void> {
    const work = new AbortController();
    this.#work = work;
    let again = 10;
    try {
      this.hour = await api.now(work.signal);
      this.problem = "";
      again = Math.max(1, this.hour.interval_s);
    } catch (error) {
      if (work.signal.aborted) return;
      const absent = error instanceof ApiError && error.absent;
      this.problem = absent ? "This server does not tell about its last hour: it has no /v1/now." : messageOf(error);
      if (absent || (error instanceof ApiError && [401, 403, 501].includes(error.status))) return;
    }
    if (!work.signal.aborted) this.#timer = window.setTimeout(() => void this.#ask(), again * 1000);
  }

  override render() {
    const { hour } = this;
    return html`<div class="stack">
      <h2 class="hidden">The last hour</h2>
      ${this.problem ? html`<p class="alert" role="alert">${this.problem}</p>` : nothing}
      ${hour === null
        ? this.problem
          ? nothing
          : html`<p class="note busy">Asking the server …</p>`
        : [this.#tiles(hour), this.#alerts(hour), this.#models(hour), this.#server(hour)]}
    </div>`;
  }

  #tiles(hour: Hour) {
    const total = hour.latency_ms["total"];
    const tiles: [string, string][] = [
      ["requests a second", plain(last(hour.requests_per_s))],
      ["errors a second", plain(last(hour.errors_per_s))],
      ["of answers degraded", percent(last(hour.degraded_share))],
      [`waiting, of ${hour.queue_limit}`, plain(last(hour.queue))],
      ["latency, p99", total && last(total.p99) !== null ? milliseconds(last(total.p99) ?? 0) : "–"],
      ["decode workers", plain(last(hour.decode_workers.running))],
    ];
    return html`<div class="tiles">
      ${tiles.map(([words, value]) => html`<div class="tile"><b>${value}</b><span>${words}</span></div>`)}
    </div>`;
  }

  #alerts(hour: Hour) {
    const unjudged = (hour.not_judged ?? []).map((one) => (typeof one === "string" ? one : one.name));
    return html`<section class="card stack" aria-labelledby="alerts">
      <h2 id="alerts">Alerts that would fire now</h2>
      ${hour.alerts.length === 0
        ? html`<p><span class="pill good">none</span></p>`
        : html`<ul class="alerts">
            ${hour.alerts.map((one) => this.#alert(one))}
          </ul>`}
      ${unjudged.length > 0
        ? html`<details>
            <summary>${unjudged.length} more that only Prometheus can judge</summary>
            <p class="note wrap">${unjudged.join(", ")}</p>
          </details>`
        : nothing}
    </section>`;
  }

  #alert(one: Alert) {
    const since = one.since === null ? "" : `since ${new Date(one.since * 1000).toLocaleTimeString()}`;
    const labels = Object.entries(one.labels).map(([name, value]) => `${name} ${value}`);
    // Of what a server says, only these two become links.
    const link = /^https?:\/\//.test(one.runbook);
    return html`<li class=${one.severity === "critical" ? "critical" : ""}>
      <div class="row"><b class="wrap">${one.name}</b><span class="pill">${one.severity}</span><span class="note">${since}</span></div>
      <p class="wrap">${one.summary}</p>
      <p class="note wrap">
        ${labels.length > 0 ? `${labels.join(", ")} · ` : nothing}what to do:
        ${link ? html`<a href=${one.runbook} rel="noreferrer" target="_blank">${one.runbook}</a>` : one.runbook}
      </p>
    </li>`;
  }

  #server(hour: Hour) {
    const stage = (of: "p50" | "p99"): Line[] =>
      Object.entries(STAGES)
        .filter(([name]) => name in hour.latency_ms)
        .map(([name, look]) => ({ name, values: hour.latency_ms[name]?.[of] ?? [], ...look }));
    return html`<section class="stack" aria-labelledby="server">
      <h2 id="server">The server</h2>
      <div class="charts">
      ${this.#chart(hour, "Requests a second", plain, [
        { name: "requests", values: hour.requests_per_s, colour: "--ink" },
        { name: "server's errors", values: hour.errors_per_s, colour: "--bad" },
        ...(hour.rejected_per_s
          ? [{ name: "refused, caller's fault", values: hour.rejected_per_s, colour: "--warn", dash: [6, 4] }]
          : []),
      ])}
      ${this.#chart(hour, "Degraded answers", percent, [{ name: "share", values: hour.degraded_share, colour: "--bad" }], 1)}
      ${this.#chart(hour, "Latency by stage, median", milliseconds, stage("p50"))}
      ${this.#chart(hour, "Latency by stage, p99", milliseconds, stage("p99"))}
      ${this.#chart(hour, "Waiting requests", plain, [{ name: "waiting", values: hour.queue, colour: "--ink" }])}
      ${this.#chart(hour, "Decode workers", plain, [
        { name: "running", values: hour.decode_workers.running, colour: "--ink" },
        { name: "lost", values: hour.decode_workers.lost, colour: "--bad" },
      ])}
      </div>
    </section>`;
  }

  #chart(hour: Hour, name: string, words: (value: number) => string, lines: Line[], most: number | null = null, least = 1) {
    return html`<div class="card">
      <dm-chart .name=${name} .times=${hour.times} .lines=${lines} .words=${words} .most=${most} .least=${least}></dm-chart>
    </div>`;
  }

  #models(hour: Hour) {
    return Object.entries(hour.models).map(([model, { modalities, fused_head, estimated_accuracy }]) => {
      const [name = "", version = ""] = split(model);
      const known = session.models.find((one) => one.name === name && String(one.version) === version);
      const order = known?.modalities.map((one) => one.name) ?? Object.keys(modalities);
      const heads: [string, NowHead][] = order.flatMap((one) => (modalities[one] ? [[one, modalities[one]]] : []));
      if (fused_head) heads.push(["fused", fused_head]);
      const lines = (of: (one: NowHead) => Series): Line[] =>
        heads.map(([one, head]) => ({ name: one, values: of(head), colour: `--${colourClass(one, order)}` }));
      const okay: Line[] = order.map((one) => ({
        name: one,
        values: modalities[one]?.ok_share ?? [],
        colour: `--${colourClass(one, order)}`,
      }));
      return html`<section class="stack" aria-label="Model ${model}">
        <h2 class="wrap">${name} ${version ? html`<span class="note">version ${version}</span>` : nothing}</h2>
        <div class="charts">
          ${this.#chart(hour, "Share that is ok", percent, okay, 1)}
          ${this.#chart(hour, "Certainty", percent, lines((one) => one.certainty), 1)}
          ${this.#chart(hour, "Weight", percent, lines((one) => one.weight), 1)}
          ${this.#chart(hour, "Drift", (value) => value.toFixed(2), lines((one) => one.drift), null, 0.3)}
          ${estimated_accuracy ? accuracyCard(hour.times, estimated_accuracy, order) : nothing}
        </div>
        <div class="card">
          <h3>What became of each modality, in this hour</h3>
          <div class="scroll">
            <table>
              <tbody>
                ${order.map(
                  (one) => html`<tr>
                    <th scope="row"><span class="dot ${colourClass(one, order)}"></span> ${one}</th>
                    <td>
                      <div class="states">
                        ${Object.entries(modalities[one]?.statuses ?? {}).map(
                          ([status, count]) =>
                            html`<span class="pill ${status === "ok" ? "good" : "bad"}"
                              >${status.replace(":", ": ").replaceAll("_", " ")} <b>${count}</b></span
                            >`,
                        )}
                      </div>
                    </td>
                  </tr>`,
                )}
              </tbody>
            </table>
          </div>
        </div>
      </section>`;
    });
  }
}

function split(model: string): [string, string] {
  const at = model.lastIndexOf(":");
  return at < 0 ? [model, ""] : [model.slice(0, at), model.slice(at + 1)];
}

function last(values: Series): number | null {
  return values.findLast((one) => one !== null) ?? null;
}

function plain(value: number | null): string {
  if (value === null) return "–";
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 1 ? 2 : 1);
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-now": Now;
  }
}
