/** What the server's API answers (docs/http_api.md), as far as the page uses it. */

export type Status = "ok" | "absent" | "unusable" | "timeout" | "failed";

export interface ModalityAnswer {
  status: Status;
  reason?: string | null;
  detail?: string | null;
  certainty: number | null;
  weight: number;
  label: string | null;
  probability: number | null;
  channel?: string | null;
}

export interface LabelProbability {
  label: string;
  probability: number;
}

export interface Explanation {
  label: string;
  log_probability: number;
  nothing_log_probability: number;
  modalities: Record<string, { shapley: number | null; without: LabelProbability | null }>;
  occlusion?: Occlusion | null;
  /** Why it is not whole, if it is not. */
  stopped?: string | null;
}

export interface Occlusion {
  stretches: { start_s: number; end_s: number }[];
  modalities: Record<string, { log_probability: (number | null)[]; label: (string | null)[] }>;
}

export type Timings = Record<"queue" | "decode" | "encode" | "fuse" | "total", number>;

export interface Prediction {
  request_id: string;
  model: string;
  version: number;
  label: string;
  probability: number;
  predictions: LabelProbability[];
  degraded: boolean;
  truncated: boolean;
  truncations: Record<string, { held_s: number; promised_s: number }>;
  modalities: Record<string, ModalityAnswer>;
  fused_head: { certainty: number | null; weight: number } | null;
  start_s: number | null;
  end_s: number | null;
  timings_ms: Timings | null;
  explanation?: Explanation | null;
  damage?: Record<string, string> | null;
  /** Of bundles with prediction sets: the labels among which the true one is, the most probable first. */
  set?: string[] | null;
  abstained?: boolean | null;
  abstained_reason?: "low_probability" | "large_set" | "unknown_class" | null;
}

export interface ErrorDetail {
  code: string;
  message: string;
  field?: string | null;
  request_id?: string;
  modalities?: Record<string, { status: Status; reason?: string | null; detail?: string | null }> | null;
}

export interface Modality {
  name: string;
  kind: "waveform" | "frames" | "flow" | "series";
  [field: string]: unknown;
}

export interface Model {
  name: string;
  version: number;
  labels: string[];
  modalities: Modality[];
  heads: string[];
  clip_s: number;
  /** Arithmetic of its encoders: fp32, fp16 or int8. */
  precision?: string;
  description: string;
  created: string;
  sha256: string;
  default: boolean;
  share_percent: number;
  shadow: boolean;
  prediction_sets?: { coverage: number; abstain_below: number | null; max_set_size: number | null } | null;
}

export interface ModelDetail extends Model {
  fusion: Record<string, unknown>;
  deadlines_ms: Record<string, number>;
  metrics: Record<string, unknown>;
  card?: Record<string, unknown> | null;
}

export interface Routing {
  name: string;
  loaded: number[];
  default: number;
  split: Record<string, number>;
  shadow: number | null;
}

export interface Picture {
  png: string;
  width: number;
  height: number;
  max_hz?: number;
  top_db?: number;
}

export interface Channel {
  name: string;
  unit?: string | null;
  peaks: ([number, number] | null)[];
}

export interface Seen {
  kind: "waveform" | "frames" | "flow" | "series";
  status: Status;
  reason?: string | null;
  detail?: string | null;
  channel?: string | null;
  sample_rate?: number;
  seconds?: number;
  peaks?: [number, number][] | null;
  spectrogram?: Picture | null;
  times_s?: number[] | null;
  frames?: string[] | null;
  channels?: Channel[] | null;
  /** How many the encoder gets, of which these are some. */
  count?: number;
  width?: number;
  height?: number;
}

export interface Inputs {
  model: string;
  version: number;
  start_s: number | null;
  end_s: number | null;
  duration_s: number | null;
  modalities: Record<string, Seen>;
}

export interface TimelineWindow {
  start_s: number;
  end_s: number;
  prediction?: Prediction;
  error?: ErrorDetail;
}

export type TimelineLine = TimelineWindow | { done: true; windows: number } | { error: ErrorDetail };

export type Series = (number | null)[];

export interface Alert {
  name: string;
  severity: string;
  since: number | null;
  summary: string;
  labels: Record<string, string>;
  runbook: string;
}

export interface NowHead {
  certainty: Series;
  weight: Series;
  drift: Series;
}

export interface NowModality extends NowHead {
  ok_share: Series;
  statuses: Record<string, number>;
}

export interface NowModel {
  modalities: Record<string, NowModality>;
  fused_head?: NowHead | null;
  /** By the modalities present, joined by "+"; absent from a server of before. */
  estimated_accuracy?: Record<string, NowAccuracy>;
}

/** Share of the last answers from some modalities that is right, as they estimate it, and on validation clips. */
export interface NowAccuracy {
  estimate: Series;
  reference: number | null;
}

export interface Now {
  interval_s: number;
  times: number[];
  requests_per_s: Series;
  errors_per_s: Series;
  rejected_per_s?: Series;
  degraded_share: Series;
  queue: Series;
  queue_limit: number;
  latency_ms: Record<string, { p50: Series; p99: Series }>;
  decode_workers: { running: Series; lost: Series };
  models: Record<string, NowModel>;
  alerts: Alert[];
  not_judged?: (string | { name: string })[];
}
