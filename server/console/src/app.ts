/** The shell: which model, which tab, light or dark, and the question for an API key. */
import { LitElement, css, html, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { hasKey, messageOf, onKeyWanted, setKey } from "./api/client";
import { shared } from "./look/shared";
import type { KeyDialog } from "./parts/key-dialog";
import { SessionWatch, session } from "./session";
import "./parts/key-dialog";
import "./try/tab";

const TABS = [
  { id: "try", name: "Try", load: () => Promise.resolve(), body: () => html`<dm-try></dm-try>` },
  {
    id: "timeline",
    name: "Timeline",
    load: () => import("./timeline/tab"),
    body: () => html`<dm-timeline></dm-timeline>`,
  },
  { id: "models", name: "Models", load: () => import("./models/tab"), body: () => html`<dm-models></dm-models>` },
  { id: "now", name: "Now", load: () => import("./now/tab"), body: (on: boolean) => html`<dm-now ?on=${on}></dm-now>` },
] as const;

type Theme = "system" | "light" | "dark";
const THEMES: Theme[] = ["system", "light", "dark"];

@customElement("dm-console")
export class Console extends LitElement {
  static override styles = [
    shared,
    css`
      header {
        position: sticky;
        top: 0;
        z-index: 5;
        background: color-mix(in srgb, var(--page) 88%, transparent);
        backdrop-filter: blur(10px);
        border-bottom: 1px solid var(--edge);
      }
      .bar {
        max-width: 1240px;
        margin: 0 auto;
        padding: 10px 20px 0;
        display: grid;
        grid-template-columns: auto 1fr auto;
        gap: 4px 24px;
        align-items: center;
      }
      .brand {
        display: flex;
        gap: 10px;
        align-items: center;
        font-weight: 650;
        font-size: 17px;
        letter-spacing: -0.015em;
        margin: 0;
      }
      .brand span {
        color: var(--soft);
        font-weight: 450;
      }
      .brand svg {
        width: 26px;
        height: 26px;
      }
      .tools {
        display: flex;
        gap: 6px;
        align-items: center;
        justify-content: flex-end;
        min-width: 0;
      }
      .tools select {
        max-width: 190px;
      }
      .tools button {
        padding: 5px 10px;
      }
      [role="tablist"] {
        display: flex;
        gap: 4px;
        align-self: end;
        justify-self: center;
      }
      [role="tab"] {
        border: 0;
        border-radius: 8px 8px 0 0;
        background: none;
        min-height: 44px;
        padding: 8px 16px;
        color: var(--soft);
        border-bottom: 2.5px solid transparent;
        font-size: 15px;
      }
      [role="tab"]:hover {
        color: var(--ink);
      }
      [role="tab"][aria-selected="true"] {
        color: var(--ink);
        border-bottom-color: var(--ink);
      }
      main {
        max-width: 1240px;
        margin: 0 auto;
        padding: 26px 20px 72px;
      }
      .alert {
        margin-bottom: 20px;
      }
      .skip {
        position: absolute;
        left: 12px;
        top: -60px;
        z-index: 9;
        background: var(--ink);
        color: var(--page);
        padding: 8px 14px;
        border-radius: 8px;
      }
      .skip:focus {
        top: 10px;
      }
      @media (max-width: 720px) {
        .bar {
          grid-template-columns: auto 1fr;
          padding: 10px 14px 0;
          gap: 4px 10px;
        }
        [role="tablist"] {
          grid-column: 1 / -1;
          grid-row: 2;
          justify-self: stretch;
        }
        [role="tab"] {
          flex: 1;
          padding: 8px 4px;
        }
        .brand span {
          display: none;
        }
        .tools select {
          max-width: 150px;
        }
        main {
          padding: 16px 14px 56px;
        }
      }
      @media (max-width: 400px) {
        .tools select {
          max-width: 118px;
        }
      }
    `,
  ];

  @state() private tab = 0;
  @state() private opened = new Set<number>([0]);
  @state() private problem = "";
  @state() private theme: Theme = "system";
  @query("dm-key-dialog") private readonly keyDialog!: KeyDialog;

  constructor() {
    super();
    new SessionWatch(this);
  }

  override firstUpdated(): void {
    onKeyWanted((refused) => this.keyDialog.ask(refused));
    const wanted = TABS.findIndex((one) => one.id === location.hash.slice(1));
    if (wanted > 0) void this.open(wanted);
    window.addEventListener("hashchange", () => {
      const place = TABS.findIndex((one) => one.id === location.hash.slice(1));
      if (place >= 0 && place !== this.tab) void this.open(place);
    });
    void this.refresh();
  }

  private async refresh(): Promise<void> {
    try {
      await session.loadModels();
      this.problem = "";
    } catch (error) {
      this.problem = messageOf(error);
    }
    this.requestUpdate();
  }

  private async open(place: number): Promise<void> {
    await TABS[place]?.load();
    this.opened = new Set([...this.opened, place]);
    this.tab = place;
    history.replaceState(null, "", `#${TABS[place]?.id ?? ""}`);
  }

  private async keys(event: KeyboardEvent): Promise<void> {
    const last = TABS.length - 1;
    const moves: Record<string, number> = {
      ArrowRight: this.tab === last ? 0 : this.tab + 1,
      ArrowLeft: this.tab === 0 ? last : this.tab - 1,
      Home: 0,
      End: last,
    };
    const place = moves[event.key];
    if (place === undefined) return;
    event.preventDefault();
    await this.open(place);
    await this.updateComplete;
    this.renderRoot.querySelectorAll<HTMLElement>("[role=tab]")[place]?.focus();
  }

  private nextTheme(): void {
    this.theme = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length] ?? "system";
    if (this.theme === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = this.theme;
    // Canvases must draw anew.
    window.dispatchEvent(new Event("dm-theme"));
  }

  private async changeKey(): Promise<void> {
    const given = await this.keyDialog.ask("", true);
    if (given === null) return;
    setKey(given || null);
    await this.refresh();
  }

  override render() {
    return html`
      <a class="skip" href="#content" @click=${this.skip}>To the content</a>
      <header>
        <div class="bar">
          <h1 class="brand">${mark} <span class="hidden">dimml</span>dimml <span>console</span></h1>
          <div role="tablist" aria-label="Views" @keydown=${this.keys}>
            ${TABS.map(
              (one, place) => html`
                <button
                  role="tab"
                  id="tab-${one.id}"
                  aria-selected=${place === this.tab}
                  aria-controls="panel-${one.id}"
                  tabindex=${place === this.tab ? 0 : -1}
                  @click=${() => this.open(place)}
                >
                  ${one.name}
                </button>
              `,
            )}
          </div>
          <div class="tools">
            ${session.models.length > 0
              ? html`<select aria-label="Model" @change=${this.choose}>
                  ${session.models.map(
                    (one) =>
                      html`<option value="${one.version} ${one.name}" ?selected=${one === session.model}>
                        ${one.name} ${one.version}
                      </option>`,
                  )}
                </select>`
              : nothing}
            <button class="quiet" @click=${this.changeKey} aria-label=${hasKey() ? "Change the API key" : "Give an API key"}>
              ${keyMark(hasKey())}
            </button>
            <button class="quiet" @click=${this.nextTheme} aria-label="Colours: ${this.theme}" title="Colours: ${this.theme}">
              ${themeMark(this.theme)}
            </button>
          </div>
        </div>
      </header>
      <main id="content" tabindex="-1">
        ${this.problem
          ? html`<div class="alert row spread" role="alert">
              <span>${this.problem}</span><button @click=${this.refresh}>Try again</button>
            </div>`
          : nothing}
        ${TABS.map((one, place) =>
          this.opened.has(place)
            ? html`<section
                role="tabpanel"
                id="panel-${one.id}"
                aria-labelledby="tab-${one.id}"
                ?hidden=${place !== this.tab}
              >
                ${one.body(place === this.tab)}
              </section>`
            : html`<section role="tabpanel" id="panel-${one.id}" aria-labelledby="tab-${one.id}" hidden></section>`,
        )}
      </main>
      <dm-key-dialog></dm-key-dialog>
    `;
  }

  private choose(event: Event): void {
    const [version = "", ...name] = (event.target as HTMLSelectElement).value.split(" ");
    session.choose(name.join(" "), Number(version));
  }

  private skip(event: Event): void {
    event.preventDefault();
    this.renderRoot.querySelector<HTMLElement>("main")?.focus();
  }
}

const mark = html`<svg viewBox="0 0 32 32" aria-hidden="true">
  <rect x="3" y="14" width="7" height="15" rx="3.5" fill="var(--c0)" />
  <rect x="12.5" y="3" width="7" height="26" rx="3.5" fill="var(--c1)" />
  <rect x="22" y="9" width="7" height="20" rx="3.5" fill="var(--c2)" />
</svg>`;

const icon = (path: unknown) => html`<svg
  viewBox="0 0 20 20"
  width="18"
  height="18"
  fill="none"
  stroke="currentColor"
  stroke-width="1.6"
  stroke-linecap="round"
  stroke-linejoin="round"
  aria-hidden="true"
>
  ${path}
</svg>`;

function keyMark(given: boolean) {
  return icon(
    // Each shape is a whole SVG of its own, so that Lit parses it as SVG.
    given
      ? svgPath("M7 13a4 4 0 1 1 3.5-6H18v3h-2v3h-3v-3h-2.5A4 4 0 0 1 7 13Zm0-4.01V9")
      : svgPath("M5.5 9V6.5a4.5 4.5 0 0 1 9 0M4.5 9h11v8h-11Z"),
  );
}

function themeMark(theme: Theme) {
  return icon(
    svgPath(
      {
        system: "M10 3a7 7 0 1 0 0 14ZM10 3a7 7 0 0 1 0 14",
        light: "M10 6.5a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7M10 1.5v2M10 16.5v2M1.5 10h2M16.5 10h2M4 4l1.4 1.4M14.6 14.6 16 16M16 4l-1.4 1.4M5.4 14.6 4 16",
        dark: "M16.5 12A7 7 0 0 1 8 3.5a7 7 0 1 0 8.5 8.5Z",
      }[theme],
    ),
  );
}

function svgPath(d: string) {
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", d);
  return path;
}
