/** Whatever a model card holds, as a list of names and values; what is not there is "not recorded". */
import { type TemplateResult, html, nothing } from "lit";

const MOST_ITEMS = 40;

function words(name: string): string {
  return name.replaceAll("_", " ");
}

function number(value: number): string {
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 1e-3 || value === 0 ? Number(value.toPrecision(4)).toString() : value.toExponential(1);
}

function plain(value: unknown): string | null {
  if (value === null || value === undefined) return "not recorded";
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value || "–";
  if (!Array.isArray(value)) return null;
  const items = value.map(plain);
  if (items.includes(null)) return null;
  return items.length > MOST_ITEMS ? `${items.slice(0, MOST_ITEMS).join(", ")} … (${items.length})` : items.join(", ") || "–";
}

/** Rows of one object; objects within it become tables of their own, folded. */
export function fields(of: Record<string, unknown>): TemplateResult {
  const entries = Object.entries(of);
  const simple = entries.filter(([, value]) => plain(value) !== null);
  const nested = entries.filter(([, value]) => plain(value) === null);
  return html`${simple.length === 0
      ? nothing
      : html`<div class="scroll">
          <table class="fields">
            <tbody>
              ${simple.map(([name, value]) => {
                const missing = value === null || value === undefined;
                return html`<tr>
                  <th scope="row">${words(name)}</th>
                  <td class="wrap ${missing ? "missing" : ""}">${plain(value)}</td>
                </tr>`;
              })}
            </tbody>
          </table>
        </div>`}
    ${nested.map(
      ([name, value]) => html`<details>
        <summary>${words(name)}</summary>
        <div class="inner">
          ${Array.isArray(value)
            ? value
                .slice(0, MOST_ITEMS)
                .map((one) => (plain(one) === null ? fields(one as Record<string, unknown>) : html`<p>${plain(one)}</p>`))
            : fields(value as Record<string, unknown>)}
        </div>
      </details>`,
    )}`;
}
