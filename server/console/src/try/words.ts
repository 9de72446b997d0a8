/** An answer in one or two plain sentences. */
import type { ModalityAnswer, Prediction } from "../api/types";
import { listed, percent } from "../look/format";

const WHY_NOT: Record<string, string> = {
  not_sent: "nothing was sent for it",
  no_track: "the recording has no such track",
  track_not_started: "its track begins later",
  track_ended: "its track has ended by then",
  not_requested: "you left it out",
  unsupported: "its format is not read",
  undecodable: "it does not decode",
  empty: "its file is empty",
  decoder_crashed: "it crashed the decoder",
  decode_timeout: "decoding it took too long",
  decode_memory: "decoding it took too much memory",
  silent: "the sound is silent",
  black: "the picture is black",
  frozen: "the picture is frozen",
  flat: "the sensor gives one value only",
  gaps: "too much of it is missing",
  saturated: "the sensor is at its limits",
  deadline: "its encoder was late",
  encoder_error: "its encoder failed",
  encoder_gone: "its encoder is gone",
  encoder_busy: "its encoder is stalled",
  non_finite: "its encoder gave no number",
};

export function whyNot(own: { status: string; reason?: string | null }): string {
  return WHY_NOT[own.reason ?? ""] ?? (own.reason ?? own.status).replaceAll("_", " ");
}

export function whyAbstained(answer: Prediction): string {
  switch (answer.abstained_reason) {
    case "unknown_class":
      return "This looks like no class that training has seen: do not believe the answer.";
    case "large_set":
      return `The set has ${answer.set?.length ?? 0} labels, more than it may: do not believe the first one.`;
    default:
      return "The answer is less probable than it must be: do not believe it.";
  }
}

export function sentence(answer: Prediction): string {
  const entries = Object.entries(answer.modalities);
  const ok = entries.filter((entry): entry is [string, ModalityAnswer & { label: string }] => entry[1].label !== null);
  const out = entries.filter(([, own]) => own.status !== "ok");
  return [voting(answer, ok), ...out.map(([name, own]) => `${name} did not count: ${whyNot(own)}.`)].join(" ");
}

function voting(answer: Prediction, ok: [string, ModalityAnswer & { label: string }][]): string {
  const [first] = ok;
  if (first === undefined) return "";
  const vote = ([name, own]: (typeof ok)[number]): string => `${name} says ${own.label} (${percent(own.probability)})`;
  if (ok.length === 1) return `Only ${first[0]} counted: it says ${first[1].label} (${percent(first[1].probability)}).`;
  const names = listed(ok.map(([name]) => name));
  if (ok.every(([, own]) => own.label === first[1].label)) return `${names} agree on ${first[1].label}.`;
  const most = ok.reduce((one, other) => (other[1].weight > one[1].weight ? other : one));
  const counted = most[1].label === answer.label ? `, and ${most[0]} counts most` : "";
  return `They differ: ${ok.map(vote).join(", ")}${counted}.`;
}
