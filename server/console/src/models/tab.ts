/** Models: every bundle and version as a card, two compared, and what an administrator may change. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { api, messageOf } from "../api/client";
import { shared } from "../look/shared";
import { SessionWatch, session } from "../session";
import type { Entry } from "./control";
import "./card";
import "./compare";
import "./control";

@customElement("dm-models")
export class Models extends LitElement {
  static override styles = [
    shared,
    css`
      .cards {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr));
        gap: var(--gap);
        align-items: start;
      }
    `,
  ];

  @state() private control: Map<string, Entry[]> | null = null;
  @state() private problem = "";

  constructor() {
    super();
    new SessionWatch(this);
  }

  /** Read the repository's index: bundles are its entries whose parts (encoders, fusion) are not listed as well. */
  private async look(): Promise<void> {
    try {
      const found = await api.index();
      const names = new Set(found.map((one) => one.name));
      const bundles = [...names].filter(
        (name) => names.has(`${name}_media`) || session.models.some((one) => one.name === name),
      );
      const entries = bundles.map((name): [string, Entry[]] => [
        name,
        found
          .filter((one) => one.name === name && one.version)
          .map((one) => ({ version: Number(one.version), state: one.state, reason: one.reason ?? "" }))
          .sort((one, other) => one.version - other.version),
      ]);
      this.control = new Map(entries);
      this.problem = "";
    } catch (error) {
      this.problem = messageOf(error);
    }
  }

  override render() {
    return html`<div class="stack">
      <section class="stack" aria-labelledby="served">
        <h2 id="served">What is served</h2>
        ${session.models.length === 0 ? html`<p class="note">Nothing is loaded.</p>` : nothing}
        <div class="cards">${session.models.map((one) => html`<dm-model-card .model=${one}></dm-model-card>`)}</div>
      </section>
      <dm-compare></dm-compare>
      <section class="stack" aria-labelledby="control">
        <div class="row spread">
          <div>
            <h2 id="control">Load, roll back, split</h2>
            <p class="note">
              Changes what everybody is served. It takes <code>model_control=explicit</code>, and an admin key where the
              server has keys.
            </p>
          </div>
          <button @click=${this.look}>${this.control === null ? "Show the controls" : "Look again"}</button>
        </div>
        ${this.problem ? html`<p class="alert" role="alert">${this.problem}</p>` : nothing}
        ${[...(this.control ?? [])].map(
          ([name, entries]) => html`<dm-control .name=${name} .entries=${entries} @changed=${this.look}></dm-control>`,
        )}
      </section>
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-models": Models;
  }
}
