/** Two versions judging the same files: what each says, and who is right where it is known. */
import { ApiError, api, messageOf } from "../api/client";
import type { Model, Prediction } from "../api/types";

export interface Case {
  name: string;
  /** The folder's name where it is a label of the model; null where the truth is not known. */
  truth: string | null;
  answers: (Prediction | { error: string })[];
}

export interface Tally {
  files: number;
  known: number;
  right: [number, number];
  /** Right where the other is wrong. */
  only: [number, number];
  differ: number;
  /** Two-sided sign test over the files that only one of them got right; null where there are none. */
  p: number | null;
}

/** The label that a file's folder names, if the model knows it. */
export function truthOf(file: File, labels: readonly string[]): string | null {
  const folder = file.webkitRelativePath.split("/").at(-2);
  return folder !== undefined && labels.includes(folder) ? folder : null;
}

async function ask(file: File, model: Model, signal: AbortSignal): Promise<Prediction | { error: string }> {
  const form = new FormData();
  form.append("model", model.name);
  form.append("version", String(model.version));
  form.append("media", file, file.name);
  for (let wait = 1; ; wait *= 2) {
    try {
      return await api.predict(form, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      // A full queue empties; everything else is what this file gets.
      const full = error instanceof ApiError && error.status === 429;
      if (!full || wait > 8) return { error: messageOf(error) };
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    }
  }
}

/** Judge file after file, by both models at once. */
export async function* judged(
  files: readonly File[],
  models: readonly [Model, Model],
  signal: AbortSignal,
): AsyncGenerator<Case> {
  for (const file of files) {
    const answers = await Promise.all(models.map((model) => ask(file, model, signal)));
    yield { name: file.webkitRelativePath || file.name, truth: truthOf(file, models[0].labels), answers };
  }
}

export function labelOf(answer: Prediction | { error: string } | undefined): string | null {
  return answer !== undefined && "label" in answer ? answer.label : null;
}

export function tallied(cases: readonly Case[]): Tally {
  const known = cases.filter((one) => one.truth !== null);
  const right = (one: Case, which: number): boolean => labelOf(one.answers[which]) === one.truth;
  const first = known.filter((one) => right(one, 0) && !right(one, 1)).length;
  const second = known.filter((one) => right(one, 1) && !right(one, 0)).length;
  return {
    files: cases.length,
    known: known.length,
    right: [known.filter((one) => right(one, 0)).length, known.filter((one) => right(one, 1)).length],
    only: [first, second],
    differ: cases.filter((one) => labelOf(one.answers[0]) !== labelOf(one.answers[1])).length,
    p: signTest(first, second),
  };
}

/** How likely so uneven a split is if both were equally good: 2 · P(X ≤ min), X binomial with half. */
export function signTest(first: number, second: number): number | null {
  const all = first + second;
  if (all === 0) return null;
  let term = 0.5 ** all;
  if (term === 0) return first === second ? 1 : 0;
  let sum = 0;
  for (let count = 0; count <= Math.min(first, second); count += 1) {
    sum += term;
    term *= (all - count) / (count + 1);
  }
  return Math.min(1, 2 * sum);
}
