/** Calls to the server that the page came from. The API key stays in this module's memory and goes nowhere else. */
import type { ErrorDetail, Inputs, Model, ModelDetail, Now, Prediction, Routing } from "./types";

/** The page is at `…/console/`, the API beside it, below whatever prefix. */
const ROOT = new URL("../", document.baseURI);

/** An error answer of the server, or that there was none (`status` 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly detail: ErrorDetail,
  ) {
    super(detail.message);
  }

  /** Whether this server does not offer the call: an older one, or a setting is off. */
  get absent(): boolean {
    return this.status === 404 && this.detail.code === "not_found" && /^not found$/i.test(this.detail.message);
  }
}

let key: string | null = null;
let askForKey: (refused: string) => Promise<string | null> = () => Promise.resolve(null);

/** Say how a person is asked for a key; the page does once. */
export function onKeyWanted(ask: (refused: string) => Promise<string | null>): void {
  askForKey = ask;
}

export function setKey(value: string | null): void {
  key = value;
}

export function hasKey(): boolean {
  return key !== null;
}

export function rootUrl(): string {
  return ROOT.href.replace(/\/$/, "");
}

/** Send a request; asks for a key where one is wanted, and tries once more. Throws `ApiError`. */
export async function call(path: string, options: RequestInit = {}): Promise<Response> {
  for (let attempt = 0; ; attempt += 1) {
    const headers = new Headers(options.headers);
    if (key !== null) headers.set("X-API-Key", key);
    let response: Response;
    try {
      response = await fetch(new URL(path, ROOT), { ...options, headers, credentials: "omit", cache: "no-store" });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new ApiError(0, { code: "unreachable", message: "The server cannot be reached." });
    }
    if (response.ok) return response;
    const detail = await errorOf(response);
    if (response.status !== 401 || attempt > 2) throw new ApiError(response.status, detail);
    const given = await askForKey(key === null ? "" : detail.message);
    if (given === null) throw new ApiError(401, detail);
    key = given;
  }
}

async function errorOf(response: Response): Promise<ErrorDetail> {
  const nothing = { code: String(response.status), message: `The server answered ${response.status}.` };
  try {
    const body: unknown = await response.json();
    if (typeof body !== "object" || body === null || !("error" in body)) return nothing;
    // KServe's calls answer {"error": "text"}.
    return typeof body.error === "string" ? { ...nothing, message: body.error } : (body.error as ErrorDetail);
  } catch {
    return nothing;
  }
}

async function json<T>(path: string, options?: RequestInit): Promise<T> {
  return (await (await call(path, options)).json()) as T;
}

function sent(method: string, body: unknown): RequestInit {
  return { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
}

const named = encodeURIComponent;

export const api = {
  models: async (): Promise<Model[]> => (await json<{ models: Model[] }>("v1/models")).models,
  model: (name: string, version: number): Promise<ModelDetail> =>
    json(`v1/models/${named(name)}?version=${version}`),
  predict: (body: FormData, signal?: AbortSignal): Promise<Prediction> =>
    json("v1/predict", { method: "POST", body, signal: signal ?? null }),
  inputs: (body: FormData, signal?: AbortSignal): Promise<Inputs> =>
    json("v1/inputs", { method: "POST", body, signal: signal ?? null }),
  timeline: (body: FormData, signal: AbortSignal): Promise<Response> =>
    call("v1/timeline", { method: "POST", body, signal }),
  now: (signal: AbortSignal): Promise<Now> => json("v1/now", { signal }),
  routing: (name: string): Promise<Routing> => json(`v1/models/${named(name)}/routing`),
  setRouting: (name: string, change: { split?: Record<string, number>; shadow?: number | null }): Promise<Routing> =>
    json(`v1/models/${named(name)}/routing`, sent("PATCH", change)),
  index: (): Promise<{ name: string; version?: string; state: string; reason?: string }[]> =>
    json("v2/repository/index", sent("POST", {})),
  load: (name: string, versions: number[]): Promise<Response> =>
    call(
      `v2/repository/models/${named(name)}/load`,
      sent("POST", { parameters: { config: JSON.stringify({ version_policy: { specific: { versions } } }) } }),
    ),
  unload: (name: string): Promise<Response> => call(`v2/repository/models/${named(name)}/unload`, sent("POST", {})),
};

/** The message of whatever was thrown, for a person. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
