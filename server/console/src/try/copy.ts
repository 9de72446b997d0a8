/** The request as a line of curl, Python over HTTP, or Python over gRPC. */
import { LitElement, css, html } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { hasKey, rootUrl } from "../api/client";
import { shared } from "../look/shared";
import { session } from "../session";

const WAYS = ["curl", "Python", "gRPC"] as const;
type Way = (typeof WAYS)[number];

/** A word that a POSIX shell takes as it is. */
function shell(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A file's value in curl's `-F`: a quoted name, since commas and semicolons end one otherwise. */
function part(name: string, file: string): string {
  const plain = /^[\w@%+=:./-]+$/.test(file);
  return `-F ${shell(`${name}=@${plain ? file : `"${file.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`}`)}`;
}

export function asCurl(fields: Record<string, string>, files: Record<string, string>): string {
  const lines = [
    `curl ${shell(`${rootUrl()}/v1/predict`)}`,
    ...(hasKey() ? ['-H "X-API-Key: $DIMML_API_KEY"'] : []),
    ...Object.entries(files).map(([name, file]) => part(name, file)),
    // Not -F: a value that begins with @ or < would be read from a file.
    ...Object.entries(fields).map(([name, value]) => `--form-string ${shell(`${name}=${value}`)}`),
  ];
  return lines.join(" \\\n  ");
}

export function asPython(fields: Record<string, string>, files: Record<string, string>, url: string): string {
  const { media, ...parts } = files;
  const quoted = (text: string): string => JSON.stringify(text);
  const given = [
    ...(media === undefined ? [] : [quoted(media)]),
    ...(Object.keys(parts).length > 0 ? [`parts=${JSON.stringify(parts)}`] : []),
    ...Object.entries(fields).map(([name, value]) =>
      name === "modalities"
        ? `modalities=${JSON.stringify(value.split(","))}`
        : `${name}=${/^(version|top_k|start_s|end_s)$/.test(name) ? value : quoted(value)}`,
    ),
  ];
  return [
    "from dimml_client import Client",
    "",
    `with Client(${quoted(url)}) as client:${hasKey() ? "  # the key: DIMML_API_KEY" : ""}`,
    `    answer = client.predict(${given.join(", ")})`,
    "    print(answer.label, answer.probability)",
    "    for name, part in answer.modalities.items():",
    "        print(name, part.status, part.certainty, part.weight, part.label)",
  ].join("\n");
}

@customElement("dm-copy")
export class Copy extends LitElement {
  static override styles = [
    shared,
    css`
      .card {
        display: grid;
        gap: 12px;
      }
      .ways button {
        min-height: 32px;
        padding: 3px 12px;
      }
    `,
  ];

  @property({ attribute: false }) fields: Record<string, string> = {};
  @state() private way: Way = "curl";
  @state() private copied = "";

  private get text(): string {
    const { recording } = session;
    const files = Object.fromEntries(
      Object.entries({ ...(recording?.media ? { media: recording.media } : {}), ...recording?.parts }).map(
        ([name, file]) => [name, file.name],
      ),
    );
    const model: Record<string, string> = session.model ? { model: session.model.name, version: String(session.model.version) } : {};
    const fields = { ...model, ...this.fields };
    if (this.way === "curl") return asCurl(fields, files);
    const secure = location.protocol === "https:";
    // The port of gRPC is a setting of its own that no page can know.
    const grpc = `${secure ? "grpcs" : "grpc"}://${location.hostname}:8001`;
    return asPython(fields, files, this.way === "gRPC" ? grpc : rootUrl());
  }

  private async copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.text);
      this.copied = "Copied.";
    } catch {
      this.copied = "The browser does not allow it; select the text instead.";
    }
  }

  override render() {
    return html`<section class="card" aria-labelledby="title">
      <div class="row spread">
        <h2 id="title">The same request as code</h2>
        <div class="row ways" role="group" aria-label="Language">
          ${WAYS.map(
            (one) => html`<button
              aria-pressed=${one === this.way}
              @click=${() => {
                this.way = one;
                this.copied = "";
              }}
            >
              ${one}
            </button>`,
          )}
        </div>
      </div>
      <pre tabindex="0" role="region" aria-label="Request as ${this.way}">${this.text}</pre>
      <div class="row">
        <button @click=${this.copy}>Copy</button><span class="note" role="status">${this.copied}</span>
      </div>
    </section>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "dm-copy": Copy;
  }
}
