// What the sidecar answers, as far as the page reads it: joulescope/model.py in TypeScript's words.
// Only the type check reads this file; it is not served.

export type Maybe = number | null;
export type ByReason = Record<string, number>;

export interface GpuStatus {
  power_limit_watts: Maybe;
  sm_clock_hertz: Maybe;
  memory_clock_hertz: Maybe;
  temperature_celsius: Maybe;
  throttle_reasons: string[] | null;
  sm_active_ratio: Maybe;
  dram_active_ratio: Maybe;
}

export interface Gpu {
  info: {
    gpu: string;
    name: string;
    index: Maybe;
    power_limit_watts: Maybe;
    memory_total_bytes: Maybe;
    energy_source: string;
    sensor: string;
    parent: string;
    calibration_factor: number;
  };
  measured_joules: number;
  attributed_joules: number;
  idle_joules: number;
  overhead_joules: ByReason;
  unattributed_joules: ByReason;
  residual_joules: number;
  up: boolean;
  reading: {
    power_watts: Maybe;
    memory_used_bytes: Maybe;
    sm_utilization_ratio: Maybe;
    status: GpuStatus | null;
  } | null;
  accounted_until_ns: Maybe;
  counter_resets: number;
  rejected_intervals: number;
  read_failures: number;
  comparison: { ratio: Maybe } | null;
}

export interface Engine {
  info: {
    engine: string;
    model: string;
    served_model: string;
    software: string;
    vllm_version: string;
    unit: string;
    tensor_parallel: number;
    gpus: string[];
    max_num_seqs: Maybe;
    kv_cache_tokens: Maybe;
  };
  up: boolean;
  attributed_joules: Record<string, Record<string, number>>;
  wasted_joules: ByReason;
  avoided_joules: ByReason;
  adapters: Record<string, LabelTotals>;
  tenants: Record<string, LabelTotals>;
  tasks?: Record<string, LabelTotals>;
  batch_tokens?: Maybe;
  next_token_joules?: Maybe;
  baseline?: {
    learned_ratio: Maybe;
    source: string;
    version: string;
    actual_joules: Maybe;
    expected_joules: Maybe;
    error_ratio: Maybe;
  } | null;
  tokens: Record<string, number>;
  requests_started: number;
  requests_finished: Record<string, number>;
  requests_open: number;
  steps: number;
  preemptions: number;
  running: Maybe;
  waiting: Maybe;
  kv_usage_ratio: Maybe;
  records_dropped: number;
  gaps: number;
}

/** Of one LoRA adapter, tenant or task class: joules by phase. */
export interface LabelTotals {
  joules: ByReason;
  generated_tokens: number;
  requests_finished: number;
  /** Of a task class: joules of finished requests, by bucket. */
  joules_per_request?: { counts: number[]; total: number };
}

/** What engines used in all by one adapter, tenant or task; `whole` joules of `counted` finished requests. */
export interface Share {
  name: string;
  joules: number;
  tokens: number;
  requests: number;
  whole: number;
  counted: number;
}

export interface HostDomain {
  info: { domain: string };
  measured_joules: number;
  attributed_joules: ByReason;
  other_joules: number;
  idle_joules: number;
  unattributed_joules: ByReason;
  residual_joules: number;
  up: boolean;
}

export interface Server {
  server: string;
  kind: string;
  up: boolean;
  running: Maybe;
  waiting: Maybe;
  kv_usage_ratio: Maybe;
  generated_tokens: Maybe;
}

export interface Snapshot {
  time_ns: number;
  wall_seconds: number;
  gpus: Gpu[];
  engines: Engine[];
  sidecar: {
    start_wall_seconds: number;
    sessions: number;
    rejected_records: ByReason;
    attribution_lag_seconds: Maybe;
    exported: Record<string, Record<string, number>>;
  };
  host: { domains: HostDomain[] };
  multipliers: {
    pue_ratio: Maybe;
    carbon_grams_per_joule: Maybe;
    carbon_age_seconds: Maybe;
    carbon_failures: ByReason | null;
    price_per_joule: Maybe;
    currency: string;
  };
  servers: Server[];
}

export interface Envelope {
  joulescope_version: string;
  method: string;
  method_version: string;
  snapshot: Snapshot;
}

/** Wall time, seconds accounted, GPUs in it, watts by part, and by engine [joules, output, actual, expected]. */
export interface Point {
  t: number;
  s: number;
  gpus: number;
  w: number[] | null;
  e: Record<string, Maybe[]>;
}
export interface History {
  start: number;
  step_seconds: number;
  parts: string[];
  points: Point[];
}

export interface RequestRow {
  request_id: string;
  external_id: string;
  engine: string;
  model: string;
  lora: string;
  kind: string;
  start_ns: number;
  end_ns?: number;
  first_token_ns: Maybe;
  phase?: string;
  finish_reason?: string;
  prompt_tokens: number;
  cached_tokens: number;
  output_tokens: number;
  preemptions: number;
  attributed_joules: Maybe;
  prefill_joules: Maybe;
  marginal_joules: Maybe;
  attributed_low_joules?: Maybe;
  attributed_high_joules?: Maybe;
  wasted_joules?: Maybe;
}
export interface Requests {
  time_ns: number;
  wall_seconds: number;
  open: RequestRow[];
  finished: RequestRow[];
  open_total?: number;
}

export interface Problem {
  level: "bad" | "warn" | "note";
  text: string;
}

export interface Link {
  state: "live" | "busy" | "down" | "denied" | "paused";
  why: string;
  sinceMs: number;
}

export interface Sort {
  column: string;
  down: boolean;
}

export interface State {
  envelope: Envelope | null;
  /** Earlier snapshots of this run, oldest first, for differences by reason. */
  past: Snapshot[];
  points: Point[];
  stepSeconds: number;
  requests: Requests | null;
  requestsTold: boolean;
  ready: { ok: boolean; text: string } | null;
  link: Link;
  /** When figures last came, by the browser's own clock that never steps. */
  heardMs: number;
  movedMs: number;
  newVersion: boolean;
  sort: { open: Sort; finished: Sort };
  all: { open: boolean; finished: boolean };
  cursor: number | null;
}

/** What the user can do. */
export interface Acts {
  setCursor(t: number | null): void;
  pause(): void;
  retry(): void;
  reload(): void;
  sort(table: "open" | "finished", column: string): void;
  all(table: "open" | "finished"): void;
}
