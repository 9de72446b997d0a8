/** Where the time of a request went, as one bar. */
import { html } from "lit";
import type { Timings } from "../api/types";
import { milliseconds } from "../look/format";
import { placed } from "../look/placed";

const STAGES = [
  ["queue", "waiting"],
  ["decode", "decoding"],
  ["encode", "encoders"],
  ["fuse", "fusion"],
] as const;

export function timings(of: Timings) {
  const rest = Math.max(0, of.total - STAGES.reduce((sum, [name]) => sum + of[name], 0));
  const parts = [...STAGES.map(([name, words]) => ({ words, ms: of[name] })), { words: "the rest", ms: rest }];
  const text = parts.map((one) => `${one.words} ${milliseconds(one.ms)}`).join(", ");
  return html`<section class="card" aria-labelledby="times">
    <div class="row spread">
      <h2 id="times">Where the time went</h2>
      <span class="num">${milliseconds(of.total)}</span>
    </div>
    <div class="times" role="img" aria-label="Of ${milliseconds(of.total)}: ${text}">
      ${parts.map((one, place) => html`<div class="t${place}" title=${one.words} ${placed({ "flex-grow": String(one.ms) })}></div>`)}
    </div>
    <ul class="legend">
      ${parts.map((one, place) => html`<li><i class="t${place}"></i>${one.words} <b class="num">${milliseconds(one.ms)}</b></li>`)}
    </ul>
  </section>`;
}
