/** The content of results.json: the measurements of one run of the load test. */

/** Transport of a request; `none` is a loop without a server. */
export type Transport = "post" | "sse" | "ws" | "none";

/**
 * Load of a cell: closed, in which clients wait for their answers, or open, with Poisson arrivals a second.
 */
export type Load = { kind: "closed"; clients: number } | { kind: "open"; rate: number };

/** The requests of a cell. */
export interface Shape {
  name: string;
  /** Share of mixed traffic, relative to the weights of the other shapes. */
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

/** Times by kind; absent kinds were not measured. */
export interface Times {
  /** To the correct answer: from sending, or in an open loop from the intended time of sending. */
  latency?: Quantiles;
  /** To the first step of a stream. */
  first_step?: Quantiles;
  /** Between steps of a stream. */
  step_gap?: Quantiles;
  /** In the server before the first pass, by its answer. */
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
  /** From the server's metrics, which include all its work at that time. */
  batch?: {
    calls: number;
    /** Mean rows of a batch. */
    rows: number;
    /** Share of the time in which a batch ran; above 1 with several workers. */
    busy: number;
  };
  /** Requests without a correct answer, by kind. */
  errors: Record<string, number>;
  /** Steps that were merged into a later event for a slow reader. */
  merged_steps?: number;
  client_cpu_cores?: number;
  server?: {
    cpu_cores: number;
    /** At the end. */
    rss_bytes: number;
    /** `processes`: the server and its workers; `server`: without the workers, for a remote server. */
    of: "processes" | "server";
  };
  /** Cores used by all other programs at that time; absent if the server's use is unknown. */
  other_cpu_cores?: number;
  /** Open loop: at least 0.9 of the offered rate was answered, with at most 1% errors. */
  kept_up?: boolean;
  /** Speed of the machine just before: rounds a millisecond of a fixed loop. */
  machine_speed: number;
}

/** Over the repeats. */
export interface Spread {
  median: number;
  lowest: number;
  highest: number;
}

/** The summary of a cell over its repeats. */
export interface Summary {
  repeats: number;
  errors: Record<string, number>;
  figures: Record<string, Spread>;
  /** Over all repeats. */
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
  /** Reason if it could not be measured. */
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

/** The results of one run. */
export interface Results {
  format_version: 1;
  name: string;
  /** ISO 8601. */
  started: string;
  /** Duration of the run, the start of the servers included. */
  seconds: number;
  /** False if the run was interrupted, or time or requests ran out. */
  complete: boolean;
  /** Planned measurements that are missing. */
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
