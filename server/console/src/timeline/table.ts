/** Windows as the table that `dimml score --format csv` writes: the same columns in the same order (docs/scoring.md). */
import type { Model, TimelineWindow } from "../api/types";

type Cell = string | number | boolean | null | undefined;

/** The columns of a table for this model. */
export function columnsOf(model: Model): string[] {
  const own = (name: string): string[] =>
    ["status", "certainty", "weight", "label", "probability", "held_s", "promised_s", "channel"].map(
      (one) => `${name}_${one}`,
    );
  return [
    ...["id", "path", "kind", "window", "start_s", "end_s", "label", "probability"],
    ...model.labels.map((label) => `probability_${label}`),
    ...(model.prediction_sets ? ["set", "abstained", "abstained_reason"] : []),
    ...model.modalities.flatMap((one) => own(one.name)),
    ...(model.heads.includes("fused") ? ["fused_certainty", "fused_weight"] : []),
    ...["degraded", "truncated", "error", "message", "bundle", "version", "ms"],
  ];
}

function rowOf(window: TimelineWindow, place: number, name: string, model: Model): Map<string, Cell> {
  const row = new Map<string, Cell>([
    ["id", name],
    ["path", name],
    ["kind", "window"],
    ["window", place],
    ["start_s", window.start_s],
    ["end_s", window.end_s],
    ["degraded", false],
    ["truncated", false],
    ["bundle", model.name],
    ["version", model.version],
  ]);
  const { prediction: answer, error } = window;
  for (const [modality, own] of Object.entries(error?.modalities ?? {})) {
    row.set(`${modality}_status`, own.reason ? `${own.status}:${own.reason}` : own.status);
  }
  if (error) row.set("error", error.code).set("message", error.message);
  if (!answer) return row;
  row.set("label", answer.label).set("probability", answer.probability);
  row.set("degraded", answer.degraded).set("truncated", answer.truncated).set("ms", answer.timings_ms?.total);
  if (answer.set) row.set("set", JSON.stringify(answer.set)).set("abstained", answer.abstained);
  row.set("abstained_reason", answer.abstained_reason);
  for (const one of answer.predictions) row.set(`probability_${one.label}`, one.probability);
  for (const [modality, own] of Object.entries(answer.modalities)) {
    row.set(`${modality}_status`, own.reason ? `${own.status}:${own.reason}` : own.status);
    row.set(`${modality}_certainty`, own.certainty).set(`${modality}_weight`, own.weight);
    row.set(`${modality}_label`, own.label).set(`${modality}_probability`, own.probability);
    row.set(`${modality}_channel`, own.channel);
  }
  for (const [modality, one] of Object.entries(answer.truncations)) {
    row.set(`${modality}_held_s`, one.held_s).set(`${modality}_promised_s`, one.promised_s);
  }
  if (answer.fused_head) {
    row.set("fused_certainty", answer.fused_head.certainty).set("fused_weight", answer.fused_head.weight);
  }
  return row;
}

/** CSV as Arrow writes it: text in quotes, nothing where a value is missing. */
export function csvOf(windows: readonly TimelineWindow[], name: string, model: Model): string {
  const columns = columnsOf(model);
  const cell = (value: Cell): string =>
    value === null || value === undefined
      ? ""
      : typeof value === "string"
        ? `"${value.replaceAll('"', '""')}"`
        : String(value);
  const lines = windows.map((window, place) => {
    const row = rowOf(window, place, name, model);
    return columns.map((column) => cell(row.get(column))).join(",");
  });
  return `${[columns.map(cell).join(","), ...lines].join("\n")}\n`;
}
