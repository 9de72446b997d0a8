/** Where a recording comes from: dropped, chosen, recorded here, a sample, or a file for each modality. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { shared } from "../look/shared";
import { colourClass } from "../look/palette";
import { SessionWatch, session } from "../session";
import "./recorder";

interface Samples {
  model: string;
  samples: { file: string; what: string }[];
}

let samples: Promise<Samples | null> | null = null;

async function fetchSamples(): Promise<Samples | null> {
  const response = await fetch("samples/index.json").catch(() => null);
  return response?.ok ? ((await response.json()) as Samples) : null;
}

@customElement("dm-source")
export class Source extends LitElement {
  static override styles = [
    shared,
    css`
      .drop {
        width: 100%;
        min-height: 132px;
        border: 1.5px dashed var(--control);
        border-radius: 12px;
        background: var(--raised);
        display: grid;
        gap: 2px;
        align-content: center;
        justify-items: center;
        text-align: center;
        padding: 16px;
        font-weight: 400;
      }
      .drop strong {
        font-size: 16px;
        font-weight: 600;
      }
      .drop.over {
        border-color: var(--c0);
        background: color-mix(in srgb, var(--c0) 12%, var(--card));
      }
      .drop.small {
        min-height: 56px;
        grid-auto-flow: column;
        gap: 10px;
        justify-content: start;
        align-items: center;
        text-align: left;
        padding: 8px 14px;
      }
      .drop svg {
        width: 30px;
        height: 30px;
        stroke: var(--soft);
        fill: none;
        stroke-width: 1.6;
        stroke-linecap: round;
        stroke-linejoin: round;
      }
      .chips {
        display: flex;
        flex-wrap: wrap;
        gap: 6px;
      }
      .chips button {
        font-size: 13px;
        font-weight: 450;
        min-height: 30px;
        padding: 2px 11px;
        border-radius: 99px;
        text-align: left;
      }
      .close {
        gap: 8px;
      }
      details .chips {
        padding-top: 8px;
      }
      .parts {
        display: grid;
        gap: 10px;
        padding: 10px 0 4px;
      }
      .parts label {
        display: grid;
        grid-template-columns: minmax(80px, auto) 1fr;
        gap: 10px;
        align-items: center;
      }
      .parts input {
        min-width: 0;
        max-width: 100%;
      }
    `,
  ];

  /** Leave out sample clips and separate files. */
  @property({ type: Boolean }) simple = false;
  @state() private over = false;
  @state() private recorded = false;
  @state() private known: Samples | null = null;

  constructor() {
    super();
    new SessionWatch(this);
  }

  override connectedCallback(): void {
    super.connectedCallback();
    samples ??= fetchSamples();
    void samples.then((found) => {
      this.known = found;
    });
  }

  private take(files: FileList | null | undefined): void {
    const file = files?.[0];
    if (file !== undefined) session.open(file);
  }

  private async trySample(name: string): Promise<void> {
    const response = await fetch(`samples/${encodeURIComponent(name)}`);
    if (!response.ok) return;
    session.open(new File([await response.blob()], name, { type: response.headers.get("Content-Type") ?? "" }));
  }

  private usePart(modality: string, files: FileList | null): void {
    const file = files?.[0];
    if (file === undefined) return;
    session.open(null, { ...session.recording?.parts, [modality]: file });
  }

  override render() {
    const small = session.recording !== null;
    return html`
      <div class="stack">
        <button
          class="drop ${this.over ? "over" : ""} ${small ? "small" : ""}"
          @click=${() => this.renderRoot.querySelector<HTMLInputElement>("#file")?.click()}
          @dragover=${(event: DragEvent) => {
            event.preventDefault();
            this.over = true;
          }}
          @dragleave=${() => {
            this.over = false;
          }}
          @drop=${(event: DragEvent) => {
            event.preventDefault();
            this.over = false;
            this.take(event.dataTransfer?.files);
          }}
        >
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M4 16v2.5A1.5 1.5 0 0 0 5.5 20h13a1.5 1.5 0 0 0 1.5-1.5V16" />
          </svg>
          <strong>${small ? "Another recording" : "Drop a recording here"}</strong>
          ${small ? nothing : html`<span class="note">or press to choose one: video, sound or a picture</span>`}
        </button>
        <input
          id="file"
          type="file"
          hidden
          accept="video/*,audio/*,image/*,.avi,.mkv,.flv,.ts,.mpg"
          aria-label="Recording"
          @change=${(event: Event) => {
            const input = event.target as HTMLInputElement;
            this.take(input.files);
            input.value = "";
          }}
        />
        ${this.recorded
          ? html`<dm-recorder
              @done=${() => {
                this.recorded = false;
              }}
            ></dm-recorder>`
          : html`<div class="row">
              <button
                @click=${() => {
                  this.recorded = true;
                }}
              >
                Record with camera and microphone
              </button>
            </div>`}
        ${this.simple ? nothing : [this.samples(), this.separate()]}
      </div>
    `;
  }

  private samples() {
    if (this.known === null || this.known.model !== session.model?.name) return nothing;
    const chips = html`<div class="chips">
      ${this.known.samples.map(
        (one) => html`<button @click=${() => this.trySample(one.file)} title=${one.file}>${one.what}</button>`,
      )}
    </div>`;
    return session.recording === null
      ? html`<div class="stack close"><h3>Or try one of these</h3>${chips}</div>`
      : html`<details><summary>Sample clips</summary>${chips}</details>`;
  }

  private separate() {
    if (session.modalities.length < 2) return nothing;
    const chosen = session.recording?.parts ?? {};
    return html`<details ?open=${Object.keys(chosen).length > 0}>
      <summary>A file for each modality instead</summary>
      <div class="parts">
        ${session.modalities.map(
          (name) => html`<label>
            <span class="row"><span class="dot ${colourClass(name, session.modalities)}"></span>${name}</span>
            <input
              type="file"
              title=${chosen[name]?.name ?? ""}
              @change=${(event: Event) => this.usePart(name, (event.target as HTMLInputElement).files)}
            />
          </label>`,
        )}
      </div>
    </details>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-source": Source;
  }
}
