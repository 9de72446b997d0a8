/** What if: take a modality away, add noise, cover the picture. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { Modality } from "../api/types";
import { colourClass } from "../look/palette";
import { shared } from "../look/shared";

/** Changes to what the encoders get: modalities left out, and damage by modality. */
export interface WhatIf {
  without: string[];
  /** Decibels of signal over noise for sound; of 255 for pictures. */
  noise: Record<string, number>;
  /** Share of the picture. */
  cover: Record<string, number>;
}

export const NOTHING: WhatIf = { without: [], noise: {}, cover: {} };

export function changes(what: WhatIf): boolean {
  return what.without.length > 0 || Object.keys(what.noise).length > 0 || Object.keys(what.cover).length > 0;
}

/** The fields `modalities` and `damage` of a call. */
export function fieldsOf(what: WhatIf, modalities: readonly string[]): Record<string, string> {
  const used = modalities.filter((name) => !what.without.includes(name));
  const damage = [
    ...Object.entries(what.noise).map(([name, amount]) => `${name}:noise:${amount}`),
    ...Object.entries(what.cover).map(([name, amount]) => `${name}:cover:${amount}`),
  ].filter((one) => used.includes(one.split(":")[0] ?? ""));
  return {
    ...(what.without.length > 0 ? { modalities: used.join(",") } : {}),
    ...(damage.length > 0 ? { damage: damage.join(",") } : {}),
  };
}

const STEPS = 10;
/** Noise of sound by step: from hardly heard to far louder than the voice. */
const decibels = (step: number): number => 30 - 5 * step;

@customElement("dm-switches")
export class Switches extends LitElement {
  static override styles = [
    shared,
    css`
      .card {
        display: grid;
        gap: 14px;
      }
      ul {
        display: grid;
        gap: 14px;
      }
      li {
        display: grid;
        gap: 4px;
        border-top: 1px solid var(--faint);
        padding-top: 12px;
      }
      .name {
        font-weight: 600;
      }
      .slide {
        display: grid;
        grid-template-columns: 96px 1fr 82px;
        gap: 12px;
        align-items: center;
        font-size: 13.5px;
      }
      .slide span:last-child {
        text-align: right;
        color: var(--soft);
      }
    `,
  ];

  @property({ attribute: false }) what: WhatIf = NOTHING;
  @property({ attribute: false }) modalities: readonly Modality[] = [];
  /** Why the server does not take damage, if it does not. */
  @property() refused = "";

  private change(what: Partial<WhatIf>): void {
    this.dispatchEvent(new CustomEvent<WhatIf>("changed", { detail: { ...this.what, ...what } }));
  }

  private use(name: string, used: boolean): void {
    const without = this.what.without.filter((one) => one !== name);
    this.change({ without: used ? without : [...without, name] });
  }

  private amount(kind: "noise" | "cover", name: string, value: number | null): void {
    const amounts = { ...this.what[kind] };
    if (value === null) delete amounts[name];
    else amounts[name] = value;
    this.change({ [kind]: amounts });
  }

  override render() {
    const names = this.modalities.map((one) => one.name);
    return html`<section class="card" aria-labelledby="title">
      <div class="row spread">
        <h2 id="title">What if …</h2>
        ${changes(this.what)
          ? html`<button @click=${() => this.change(NOTHING)}>As it was</button>`
          : html`<span class="note">take something away, and see</span>`}
      </div>
      <ul>
        ${this.modalities.map((one) => {
          const used = !this.what.without.includes(one.name);
          return html`<li>
            <label class="check">
              <input
                type="checkbox"
                .checked=${used}
                @change=${(event: Event) => this.use(one.name, (event.target as HTMLInputElement).checked)}
              />
              <span class="dot ${colourClass(one.name, names)}"></span>
              <span class="name wrap">${one.name}</span>
              <span class="note">${used ? "is used" : "is taken away"}</span>
            </label>
            ${this.refused || !used ? nothing : this.sliders(one)}
          </li>`;
        })}
      </ul>
      ${this.refused ? html`<p class="note">${this.refused}</p>` : nothing}
    </section>`;
  }

  private sliders({ name, kind }: Modality) {
    if (kind === "waveform" || kind === "series") {
      const decibel = this.what.noise[name];
      const step = decibel === undefined ? 0 : (30 - decibel) / 5;
      return this.slider("Add noise", name, step, STEPS, decibel === undefined ? "none" : `${decibel} dB`, (value) =>
        this.amount("noise", name, value === 0 ? null : decibels(value)),
      );
    }
    const cover = this.what.cover[name];
    const noise = this.what.noise[name];
    return [
      this.slider("Cover", name, Math.round((cover ?? 0) * STEPS), STEPS, cover === undefined ? "nothing" : `${Math.round(cover * 100)} %`, (value) =>
        this.amount("cover", name, value === 0 ? null : Number((value / STEPS).toFixed(1))),
      ),
      this.slider("Add noise", name, (noise ?? 0) / 16, STEPS, noise === undefined ? "none" : `± ${noise}`, (value) =>
        this.amount("noise", name, value === 0 ? null : value * 16),
      ),
    ];
  }

  private slider(what: string, name: string, value: number, most: number, words: string, set: (value: number) => void) {
    return html`<label class="slide">
      <span>${what}</span>
      <input
        type="range"
        min="0"
        max=${most}
        step="1"
        .value=${String(value)}
        aria-label="${what}: ${name}"
        aria-valuetext=${words}
        @change=${(event: Event) => set(Number((event.target as HTMLInputElement).value))}
      />
      <span class="num">${words}</span>
    </label>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-switches": Switches;
  }
}
