/** What an administrator may change of one bundle: which versions are loaded, who answers how much, who shadows. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { ApiError, api, messageOf } from "../api/client";
import type { Routing } from "../api/types";
import { shared } from "../look/shared";
import { session } from "../session";

/** A version in the repository, loaded or not. */
export interface Entry {
  version: number;
  state: string;
  reason: string;
}

@customElement("dm-control")
export class Control extends LitElement {
  static override styles = [
    shared,
    css`
      td .row {
        gap: 6px;
      }
      td {
        vertical-align: middle;
      }
      input[type="number"] {
        width: 84px;
      }
      button {
        white-space: nowrap;
        min-height: 32px;
        padding: 3px 11px;
      }
    `,
  ];

  @property() name = "";
  @property({ attribute: false }) entries: Entry[] = [];
  @state() private routing: Routing | null = null;
  @state() private shares: Record<string, number> = {};
  @state() private problem = "";
  @state() private done = "";
  @state() private busy = false;

  override connectedCallback(): void {
    super.connectedCallback();
    void this.#look();
  }

  async #look(): Promise<void> {
    try {
      this.routing = await api.routing(this.name);
      const { split, default: first } = this.routing;
      this.shares = Object.keys(split).length > 0 ? { ...split } : { [first]: 100 };
    } catch (error) {
      this.routing = null;
      if (!(error instanceof ApiError && error.status === 404)) this.problem = messageOf(error);
    }
  }

  private async change(words: string, work: () => Promise<unknown>): Promise<void> {
    this.busy = true;
    this.problem = this.done = "";
    try {
      await work();
      this.done = words;
    } catch (error) {
      this.problem = messageOf(error);
    }
    this.busy = false;
    await this.#look();
    await session.loadModels().catch(() => undefined);
    this.dispatchEvent(new Event("changed"));
  }

  private load(version: number): Promise<void> {
    const loaded = this.routing?.loaded ?? [];
    return this.change(`Version ${version} is loaded.`, async () => {
      // Without a setting the newest answers at once; what answers now shall go on to.
      if (this.routing && Object.keys(this.routing.split).length === 0 && version > this.routing.default) {
        await api.setRouting(this.name, { split: { [this.routing.default]: 100 } });
      }
      await api.load(this.name, [...loaded, version]);
    });
  }

  private unload(version: number): Promise<void> {
    const rest = (this.routing?.loaded ?? []).filter((one) => one !== version);
    return this.change(`Version ${version} is unloaded.`, () =>
      rest.length === 0 ? api.unload(this.name) : api.load(this.name, rest),
    );
  }

  override render() {
    const { routing } = this;
    const loaded = routing?.loaded ?? [];
    return html`<section class="card stack" aria-label="Control of ${this.name}">
      <div class="row spread">
        <h2 class="wrap">${this.name}</h2>
        <span class="note" role="status">${this.done}</span>
      </div>
      ${this.problem ? html`<p class="alert" role="alert">${this.problem}</p>` : nothing}
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">version</th>
              <th scope="col">state</th>
              <th scope="col">percent of requests</th>
              <th scope="col">change</th>
            </tr>
          </thead>
          <tbody>
            ${this.entries.map((one) => this.#row(one, loaded.includes(one.version)))}
          </tbody>
        </table>
      </div>
      ${routing === null ? nothing : this.#spread(routing)}
    </section>`;
  }

  #row({ version, state: state_, reason }: Entry, loaded: boolean) {
    const sole = this.routing?.split[version] === 100 || (this.routing?.loaded.length === 1 && loaded);
    return html`<tr>
      <td>${version}</td>
      <td>
        <span class="pill ${loaded ? "good" : ""}">${state_.toLowerCase()}</span>
        ${reason && !loaded ? html`<small class="wrap">${reason}</small>` : nothing}
        ${this.routing?.shadow === version ? html`<span class="pill warn">shadow</span>` : nothing}
      </td>
      <td>
        ${loaded
          ? html`<input
              type="number"
              min="0"
              max="100"
              step="any"
              aria-label="Percent of requests for version ${version}"
              .value=${String(this.shares[version] ?? 0)}
              @input=${(event: Event) => {
                this.shares = { ...this.shares, [version]: (event.target as HTMLInputElement).valueAsNumber || 0 };
              }}
            />`
          : nothing}
      </td>
      <td>
        <div class="row">
          ${loaded
            ? html`<button
                  ?disabled=${this.busy || sole}
                  title="All requests to this version: a roll-back where it is an older one"
                  @click=${() =>
                    this.change(`Version ${version} answers everything.`, () =>
                      api.setRouting(this.name, { split: { [version]: 100 } }),
                    )}
                >
                  ${version < (this.routing?.default ?? 0) ? "Roll back to it" : "All to it"}
                </button>
                <button ?disabled=${this.busy} @click=${() => this.unload(version)}>Unload</button>`
            : html`<button ?disabled=${this.busy} @click=${() => this.load(version)}>Load</button>`}
        </div>
      </td>
    </tr>`;
  }

  #spread(routing: Routing) {
    const sum = routing.loaded.reduce((all, version) => all + (this.shares[version] ?? 0), 0);
    const right = Math.abs(sum - 100) < 1e-6;
    const split = Object.fromEntries(Object.entries(this.shares).filter(([, share]) => share > 0));
    return html`<div class="row">
      <button
        class="main"
        ?disabled=${this.busy || !right || routing.loaded.length < 2}
        @click=${() => this.change("The split is set.", () => api.setRouting(this.name, { split }))}
      >
        Set the split
      </button>
      ${right ? nothing : html`<span class="note">The shares sum to ${sum}, not 100.</span>`}
      <button
        ?disabled=${this.busy || Object.keys(routing.split).length === 0}
        @click=${() => this.change("The newest answers.", () => api.setRouting(this.name, { split: {} }))}
      >
        Always the newest
      </button>
      <label class="row note"
        >Shadow
        <select
          ?disabled=${this.busy}
          @change=${(event: Event) => {
            const value = (event.target as HTMLSelectElement).value;
            void this.change(value ? `Version ${value} is the shadow.` : "There is no shadow.", () =>
              api.setRouting(this.name, { shadow: value ? Number(value) : null }),
            );
          }}
        >
          <option value="" ?selected=${routing.shadow === null}>none</option>
          ${routing.loaded.map(
            (version) => html`<option value=${version} ?selected=${version === routing.shadow}>${version}</option>`,
          )}
        </select></label
      >
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-control": Control;
  }
}
