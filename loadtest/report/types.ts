/** What results.json holds: everything that one run of the load test measured. */

/** How a request goes to the server; `none` is a loop without a server. */
export type Transport = "post" | "sse" | "ws" | "none";

/** Which load a cell has: closed, in which a client waits for its answer, or open, with Poisson arrivals a second. */
export type Load = { kind: "closed"; clients: number } | { kind: "open"; rate: number };

/** What is asked for. */
export interface Shape {
  name: string;
  /** Share of mixed traffic, beside the weights of the other shapes. */
  weight: number;
  /** Absent for a model that has no step budget. */
  steps?: number;
  /** New tokens. */
  length: number;
  guidance?: "none" | "rgas";
  prompt?: string;
}

/** Milliseconds, from a histogram of three significant digits. */
export interface Quantiles {
  count: number;
  mean: number;
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

/** Times by what they are of; absent if nothing of the kind was seen. */
export interface Times {
  /** To the whole, correct answer: from sending, or in an open loop from when the request should have been sent. */
  latency?: Quantiles;
  /** To the first step of a stream. */
  first_step?: Quantiles;
  /** Between steps of a stream. */
  step_gap?: Quantiles;
  /** In the server before the first pass, as the server says. */
  queue?: Quantiles;
  /** Open loop: how late the client sent. */
  send_lag?: Quantiles;
}

/** Passes of each graph, or passes a second. */
export interface Passes {
  student: number;
  discriminator: number;
  gradient: number;
}

/** One measurement of one cell. */
export interface Measurement {
  repeat: number;
  /** Seconds after the start of the run. */
  started_s: number;
  /** From the first request to the last answer. */
  seconds: number;
  /** Requests that were answered correctly. */
  requests: number;
  /** New tokens of those. */
  tokens: number;
  requests_per_second: number;
  tokens_per_second: number;
  passes_per_second?: Passes;
  times_ms: Times;
  /** Mixed traffic: the times of each shape, by its name. */
  shapes?: Record<string, Times>;
  /** From the server's metrics, so of everything that it did at that time. */
  batch?: {
    calls: number;
    /** Mean rows of a call. */
    rows: number;
    /** Share of the time in which a call ran; above 1 with several processes that run ONNX Runtime. */
    busy: number;
  };
  /** Requests without a correct answer, by kind. */
  errors: Record<string, number>;
  /** Steps that came merged into one event, because the client read too slowly. */
  merged_steps?: number;
  client_cpu_cores?: number;
  server?: {
    cpu_cores: number;
    /** At the end. */
    rss_bytes: number;
    /** `processes`: the server and those that run ONNX Runtime; `server`: without them, all that a remote server says. */
    of: "processes" | "server";
  };
  /** What all other programs used at that time; absent if the server's use is not known. */
  other_cpu_cores?: number;
  /** Open loop: at least 0.9 of the offered rate was answered, with at most 1% errors. */
  kept_up?: boolean;
  /** Rounds a millisecond of a fixed loop just before: how fast the machine was. */
  machine_speed: number;
}

/** Over the repeats. */
export interface Spread {
  median: number;
  lowest: number;
  highest: number;
}

/** What the repeats of a cell come to. */
export interface Summary {
  repeats: number;
  errors: Record<string, number>;
  figures: Record<string, Spread>;
  /** Of all repeats together. */
  times_ms: Times;
  shapes?: Record<string, Times>;
}

/** A cell before it is measured. */
export interface PlannedCell {
  id: string;
  side: string;
  load: Load;
  transport: Transport;
  shapes: Shape[];
}

export interface Cell extends PlannedCell {
  measurements: Measurement[];
  summary: Summary;
}

/** The highest rate tried at which p99 stayed within the limit and the server kept up. */
export interface Knee {
  shape: Shape;
  transport: Exclude<Transport, "none">;
  /** 0 if not even the lowest rate held. */
  requests_per_second: Spread;
  repeats: number[];
  /** A higher rate was tried and failed; if not, the knee may be higher. */
  reached: boolean;
}

/** The server under test, or a peer. */
export interface SideInfo {
  name: string;
  title: string;
  settings: Record<string, string | number | boolean>;
  /** Why it could not be measured. */
  left_out?: string;
}

/** Judged quality at a step budget. */
export interface Quality {
  sampler: "plain" | "rgas" | "autoregressive";
  steps?: number;
  perplexity: number;
}

/** The machine and the versions. */
export interface Environment {
  cpu: string;
  cores: number;
  memory_bytes: number;
  platform: string;
  /** Of the working tree, with + if tracked files had changes. */
  commit?: string;
  versions: Record<string, string>;
}

/** What one run measured. */
export interface Results {
  format_version: 1;
  name: string;
  /** ISO 8601. */
  started: string;
  /** Of the whole run, the start of the servers included. */
  seconds: number;
  /** False if the run was interrupted, or time or requests ran out. */
  complete: boolean;
  /** Planned measurements that were not made. */
  left_out: number;
  settings: {
    /** The command line after the program. */
    flags: string[];
    /** Of the first request; each has its own. */
    seed: number;
    repeats: number;
    time_s: number;
    p99_limit_ms: number;
  };
  environment: Environment;
  model: { name: string; parameters: number; context_length: number };
  sides: SideInfo[];
  cells: Cell[];
  knees: Knee[];
  quality: Quality[];
  warnings: string[];
}
