/** What the encoders got: the spectrogram and wave of sound, the very frames of pictures, a sensor's channels. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { Inputs, Seen } from "../api/types";
import { seconds } from "../look/format";
import { colourClass } from "../look/palette";
import { shared } from "../look/shared";
import { pill } from "./answer";
import "./channels";
import "./spectrogram";

/** A picture as the page may show it: its policy allows `blob:`, no `data:`. */
function pictureUrl(base64: string): string {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
}

@customElement("dm-seen")
export class SeenInputs extends LitElement {
  static override styles = [
    shared,
    css`
      .card {
        display: grid;
        gap: 18px;
      }
      .film {
        display: grid;
        grid-template-columns: repeat(auto-fill, minmax(92px, 1fr));
        gap: 10px;
      }
      .film img {
        display: block;
        width: 100%;
        height: auto;
        border-radius: 8px;
        background: var(--raised);
        image-rendering: pixelated;
      }
      .film figcaption {
        font-size: 12px;
        color: var(--soft);
        text-align: center;
        margin-top: 2px;
      }
      .film button {
        padding: 0;
        border: 0;
        background: none;
        min-height: 0;
        width: 100%;
        display: block;
      }
      .name {
        font-weight: 600;
        margin-bottom: 8px;
      }
    `,
  ];

  @property({ attribute: false }) inputs!: Inputs;
  @property({ attribute: false }) modalities: readonly string[] = [];
  #urls = new Map<string, string[]>();
  #of: Inputs | null = null;

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#forget();
    this.#of = null;
  }

  override willUpdate(): void {
    if (this.#of === this.inputs) return;
    this.#forget();
    this.#of = this.inputs;
    for (const [name, seen] of Object.entries(this.inputs.modalities)) {
      if (seen.frames) this.#urls.set(name, seen.frames.map(pictureUrl));
    }
  }

  #forget(): void {
    for (const url of [...this.#urls.values()].flat()) URL.revokeObjectURL(url);
    this.#urls.clear();
  }

  override render() {
    return html`<section class="card" aria-labelledby="title">
      <div>
        <h2 id="title">What the encoders saw</h2>
        <p class="lead">Decoded, cut and scaled: exactly this went into the network.</p>
      </div>
      ${Object.entries(this.inputs.modalities).map(
        ([name, seen]) => html`<div>
          <div class="name row">
            <span class="dot ${colourClass(name, this.modalities)}"></span><span class="wrap">${name}</span>
            ${seen.status === "ok" ? nothing : pill(seen)}
          </div>
          ${this.#shown(name, seen)} ${seen.detail ? html`<p class="note wrap">${seen.detail}</p>` : nothing}
        </div>`,
      )}
    </section>`;
  }

  #shown(name: string, seen: Seen) {
    if (seen.kind === "waveform" && (seen.peaks || seen.spectrogram)) {
      return html`<dm-spectrogram
        class=${colourClass(name, this.modalities)}
        .name=${name}
        .seen=${seen}
        .start=${this.inputs.start_s ?? 0}
      ></dm-spectrogram>`;
    }
    if (seen.channels) {
      return html`<dm-channels
        class=${colourClass(name, this.modalities)}
        .name=${name}
        .channels=${seen.channels}
        .count=${seen.count ?? seen.channels.length}
      ></dm-channels>`;
    }
    const urls = this.#urls.get(name);
    if (urls === undefined || urls.length === 0) return html`<p class="note">Nothing of it could be decoded.</p>`;
    return html`<div class="film">
      ${urls.map((url, place) => {
        const at = seen.times_s?.[place];
        const words = at === undefined ? `Frame ${place + 1}` : `Frame at ${seconds(at)}`;
        return html`<figure>
          <button
            aria-label="${name}: ${words}; go there"
            @click=${() => this.dispatchEvent(new CustomEvent<number>("seek", { detail: at ?? 0 }))}
          >
            <img src=${url} width=${seen.width ?? 64} height=${seen.height ?? 64} alt="" />
          </button>
          <figcaption class="num">${at === undefined ? nothing : seconds(at)}</figcaption>
        </figure>`;
      })}
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-seen": SeenInputs;
  }
}
