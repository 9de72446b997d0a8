/** What stands in the lanes. */
import type { TimelineWindow } from "../api/types";
import { resolved } from "../look/palette";

interface Pen {
  context: CanvasRenderingContext2D;
  width: number;
  height: number;
  x: (seconds: number) => number;
}

function pen(canvas: HTMLCanvasElement, duration: number): Pen | null {
  const context = canvas.getContext("2d");
  if (context === null) return null;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height, x: (seconds) => Math.round((seconds / duration) * width) };
}

function colour(canvas: HTMLCanvasElement, property: string): string {
  return resolved(canvas.parentElement ?? canvas, property);
}

/** A window's share of the line: up to the next one where they overlap. */
function* spans(windows: readonly TimelineWindow[]): Generator<[TimelineWindow, number, number]> {
  for (const [place, window] of windows.entries()) {
    const next = windows[place + 1]?.start_s ?? window.end_s;
    yield [window, window.start_s, Math.min(window.end_s, Math.max(next, window.start_s))];
  }
}

function write({ context }: Pen, text: string, left: number, width: number, baseline: number): void {
  if (width < 18) return;
  if (context.measureText(text).width <= width - 8) context.fillText(text, left + 5, baseline);
}

function setFont(context: CanvasRenderingContext2D, canvas: HTMLCanvasElement, weight: number): void {
  context.font = `${weight} 12px ${getComputedStyle(canvas).fontFamily}`;
}

/** Labels in blocks; the surer, the darker. Windows of the same label are one block. */
export function drawAnswers(canvas: HTMLCanvasElement, windows: readonly TimelineWindow[], duration: number): void {
  const pen_ = pen(canvas, duration);
  if (pen_ === null) return;
  const { context, height, x } = pen_;
  const ink = colour(canvas, "--ink");
  const bad = colour(canvas, "--bad");
  setFont(context, canvas, 600);
  const blocks: { label: string; from: number; to: number }[] = [];
  for (const [window, from, to] of spans(windows)) {
    const answer = window.prediction;
    context.globalAlpha = answer ? 0.08 + 0.24 * answer.probability : 0.35;
    context.fillStyle = answer ? ink : bad;
    context.fillRect(x(from), 0, Math.max(1, x(to) - x(from)), height);
    const label = answer?.label ?? "no answer";
    const block = blocks.at(-1);
    if (block?.label === label && Math.abs(block.to - from) < 1e-6) block.to = to;
    else blocks.push({ label, from, to });
  }
  context.globalAlpha = 1;
  const gap = colour(canvas, "--card");
  for (const { label, from, to } of blocks) {
    context.fillStyle = gap;
    context.fillRect(x(from) - 0.75, 0, 1.5, height);
    context.fillStyle = ink;
    write(pen_, label, x(from), x(to) - x(from), height / 2 + 4);
  }
}

/** All weights on top of each other: 1 in all. */
export function drawWeights(
  canvas: HTMLCanvasElement,
  windows: readonly TimelineWindow[],
  duration: number,
  modalities: readonly string[],
): void {
  const pen_ = pen(canvas, duration);
  if (pen_ === null) return;
  const { context, height, x } = pen_;
  const colours = modalities.map((_, place) => colour(canvas, `--c${place % 6}`));
  const fused = colour(canvas, `--c${modalities.length % 6}`);
  for (const [window, from, to] of spans(windows)) {
    let top = height;
    const answer = window.prediction;
    if (!answer) continue;
    const parts = modalities.map((name, place) => [answer.modalities[name]?.weight ?? 0, colours[place] ?? fused] as const);
    for (const [weight, fill] of [...parts, [answer.fused_head?.weight ?? 0, fused] as const]) {
      context.fillStyle = fill;
      context.fillRect(x(from), top - weight * height, Math.max(1, x(to) - x(from)), weight * height);
      top -= weight * height;
    }
  }
}

/** Certainty as height, the vote where there is room, stripes where the modality does not count. */
export function drawModality(
  canvas: HTMLCanvasElement,
  windows: readonly TimelineWindow[],
  duration: number,
  name: string,
): void {
  const pen_ = pen(canvas, duration);
  if (pen_ === null) return;
  const { context, height, x } = pen_;
  const own = colour(canvas, "--own");
  const ink = colour(canvas, "--ink");
  const bad = colour(canvas, "--bad");
  setFont(context, canvas, 500);
  const words: { word: string; from: number; to: number }[] = [];
  for (const [window, from, to] of spans(windows)) {
    const answer = window.prediction?.modalities[name];
    const status = answer ?? window.error?.modalities?.[name];
    const width = Math.max(1, x(to) - x(from));
    let word = "";
    if (answer?.status === "ok") {
      const tall = (answer.certainty ?? 0) * height;
      context.globalAlpha = 0.42;
      context.fillStyle = own;
      context.fillRect(x(from), height - tall, width, tall);
      context.globalAlpha = 1;
      context.fillRect(x(from), height - tall, width, 2);
      word = answer.label ?? "";
    } else if (status) {
      stripes(pen_, x(from), width, bad);
      word = status.reason?.replaceAll("_", " ") ?? status.status;
    }
    const before = words.at(-1);
    if (before?.word === word && Math.abs(before.to - from) < 1e-6) before.to = to;
    else words.push({ word, from, to });
  }
  context.globalAlpha = 1;
  context.fillStyle = ink;
  for (const { word, from, to } of words) write(pen_, word, x(from), x(to) - x(from), height - 7);
}

function stripes({ context, height }: Pen, left: number, width: number, colour_: string): void {
  context.save();
  context.beginPath();
  context.rect(left, 0, width, height);
  context.clip();
  context.globalAlpha = 0.16;
  context.fillStyle = colour_;
  context.fillRect(left, 0, width, height);
  context.globalAlpha = 0.5;
  context.strokeStyle = colour_;
  context.lineWidth = 2;
  context.beginPath();
  // From the canvas's left edge on, so that stripes of neighbours meet.
  for (let at = Math.floor((left - height) / 9) * 9; at < left + width; at += 9) {
    context.moveTo(at, height);
    context.lineTo(at + height, 0);
  }
  context.stroke();
  context.restore();
}
