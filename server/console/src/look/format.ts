/** Numbers and words for people. */

/** A share as percent, without claiming certainty: 0.9996 is 99.9 %, and only 1 is 100 %. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return "–";
  const value = share * 100;
  if (value >= 99.95 && share < 1) return ">99.9\u00a0%";
  if (value > 0 && value < 0.1) return "<0.1\u00a0%";
  return `${value.toFixed(value >= 10 || value === 0 ? (value > 99 && share < 1 ? 1 : 0) : 1)}\u00a0%`;
}

export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return `${value.toFixed(value < 10 ? 2 : 1)}\u00a0s`;
}

export function milliseconds(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)}\u00a0ms`;
}

/** A place in a recording: 75.5 is 1:15.5. */
export function clock(value: number): string {
  const minutes = Math.floor(value / 60);
  const rest = (value - minutes * 60).toFixed(1);
  return `${minutes}:${rest.padStart(4, "0")}`;
}

/** A status and its reason as one phrase: `unusable: black`, with spaces for underscores. */
export function phrase(status: string, reason?: string | null): string {
  return (reason ? `${status}: ${reason}` : status).replaceAll("_", " ");
}

export function signed(value: number, digits = 2): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

export function bytes(value: number): string {
  return value < 1e6 ? `${(value / 1e3).toFixed(0)} kB` : `${(value / 1e6).toFixed(1)} MB`;
}

/** A list as people write it: `a, b and c`. */
export function listed(names: readonly string[]): string {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
