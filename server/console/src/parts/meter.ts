/** A share as a bar, with a tick where it was before. */
import { html, nothing } from "lit";
import { placed } from "../look/placed";
import { percent } from "../look/format";

export function meter(label: string, value: number | null, colour: string, before?: number | null) {
  const share = Math.max(0, Math.min(1, value ?? 0));
  const text = before === undefined ? percent(value) : `${percent(value)}, before ${percent(before)}`;
  return html`<div
    class="meter ${colour}"
    role="meter"
    aria-label=${label}
    aria-valuemin="0"
    aria-valuemax="1"
    aria-valuenow=${share.toFixed(3)}
    aria-valuetext=${text}
  >
    ${share > 0 ? html`<i ${placed({ width: `${100 * share}%` })}></i>` : nothing}
    ${before === undefined || before === null
      ? nothing
      : html`<b ${placed({ left: `${100 * Math.min(1, before)}%` })} title="before: ${percent(before)}"></b>`}
  </div>`;
}
