/** Asks for an API key. What is given stays in memory: no storage, no cookie, no autofill. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { shared } from "../look/shared";

@customElement("dm-key-dialog")
export class KeyDialog extends LitElement {
  static override styles = [
    shared,
    css`
      dialog {
        border: 1px solid var(--edge);
        border-radius: var(--radius);
        background: var(--card);
        color: var(--ink);
        padding: 24px;
        width: min(420px, calc(100vw - 32px));
      }
      dialog::backdrop {
        background: rgb(0 0 0 / 0.4);
      }
      form {
        display: grid;
        gap: 14px;
      }
      input {
        width: 100%;
      }
    `,
  ];

  @state() private refused = "";
  @state() private changing = false;
  @query("dialog") private readonly dialog!: HTMLDialogElement;
  @query("input") private readonly input!: HTMLInputElement;
  #waiting: Promise<string | null> | null = null;

  /** Ask; null where the person does not want to say. Several calls at once get one answer. */
  ask(refused: string, changing = false): Promise<string | null> {
    this.#waiting ??= this.#asked(refused, changing).finally(() => {
      this.#waiting = null;
    });
    return this.#waiting;
  }

  async #asked(refused: string, changing: boolean): Promise<string | null> {
    this.refused = refused;
    this.changing = changing;
    await this.updateComplete;
    this.input.value = "";
    this.dialog.returnValue = "";
    this.dialog.showModal();
    await new Promise((resolve) => this.dialog.addEventListener("close", resolve, { once: true }));
    const given = this.input.value.trim();
    this.input.value = "";
    if (this.dialog.returnValue !== "use") return null;
    return given || (this.changing ? "" : null);
  }

  override render() {
    return html`<dialog aria-labelledby="title">
      <form method="dialog">
        <h2 id="title">${this.changing ? "API key" : "This server wants an API key"}</h2>
        ${this.refused ? html`<p class="alert" role="alert">${this.refused}</p>` : nothing}
        <p class="note">
          It stays in this page's memory until the page is closed, and goes to this server alone.
          ${this.changing ? "Empty: go on without one." : nothing}
        </p>
        <input type="password" aria-label="API key" autocomplete="off" spellcheck="false" />
        <div class="row">
          <button class="main" value="use">Use it</button>
          <button value="" formnovalidate>Cancel</button>
        </div>
      </form>
    </dialog>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-key-dialog": KeyDialog;
  }
}
