/** Estimated accuracy of a model's last answers, a line for each combination of modalities present. */
import { html } from "lit";
import type { NowAccuracy } from "../api/types";
import { percent } from "../look/format";
import { colourClass } from "../look/palette";
import type { Line } from "./chart";
import "./chart";

const JOINT = "+";
const DOTTED = [1, 3];
/** Of what is neither one modality, whose colour it has, nor all of them. */
const PARTIAL: Pick<Line, "colour" | "dash">[] = [
  { colour: "--soft", dash: [10, 4] },
  { colour: "--soft", dash: [10, 3, 2, 3] },
  { colour: "--control", dash: [5, 3] },
];

export function accuracyCard(times: number[], found: Record<string, NowAccuracy>, order: string[]) {
  const lines = accuracyLines(times.length, found, order);
  return html`<div class="card">
    ${lines.length > 0
      ? html`<dm-chart .name=${"Estimated accuracy"} .times=${times} .lines=${lines} .words=${percent} .most=${1}></dm-chart>
          <p class="note">By the answers' own probabilities, without labels; dotted: the same on validation clips.</p>`
      : html`<h3>Estimated accuracy</h3>
          <p class="note">None yet: it takes as many answers from the same modalities as drift_minimum says.</p>`}
  </div>`;
}

/** The estimate of each combination, the most modalities first, and beside it what it was on validation clips. */
function accuracyLines(samples: number, found: Record<string, NowAccuracy>, order: string[]): Line[] {
  const size = (pattern: string): number => pattern.split(JOINT).length;
  const patterns = Object.keys(found).sort((one, other) => size(other) - size(one) || (one < other ? -1 : 1));
  const partial = patterns.filter((one) => size(one) > 1 && size(one) < order.length);
  return patterns.flatMap((pattern) => {
    const { estimate, reference } = found[pattern] ?? { estimate: [], reference: null };
    const name = pattern.split(JOINT).join(" + ");
    const look =
      size(pattern) === 1
        ? { colour: `--${colourClass(pattern, order)}` }
        : (PARTIAL[partial.indexOf(pattern) % PARTIAL.length] ?? { colour: "--ink" });
    const expected = { name: `${name}, validation`, values: Array<number>(samples).fill(reference ?? 0) };
    return [{ name, values: estimate, ...look }, ...(reference === null ? [] : [{ ...expected, colour: look.colour, dash: DOTTED }])];
  });
}
