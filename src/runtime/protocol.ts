/** The wire between the server and a worker: structured-clone messages over IPC. */

import type { GraphPaths } from "../model/model.ts";

/** Where a graph runs. */
export type Provider = "cpu" | "cuda";

/** What a user may ask for; `auto` takes CUDA where it loads. */
export type Device = "auto" | Provider;

/** Canvases of one call; every row is padded to the same length. */
export interface Canvases {
  /** B. */
  rows: number;
  /** L, the padded length. */
  padded: number;
  /** [B, L] ids, padding included. */
  tokens: Int32Array;
  /** [B] canvas lengths without padding. */
  length: Int32Array;
  /** [B] noise level, for graphs that take it. */
  sigma: Float32Array;
}

/** What `denoise` is asked. */
export interface DenoiseInput extends Canvases {
  /** [P, 2] (row, position), rows in order: where the output head runs. */
  picks: Int32Array;
  /** [S] index into picks, rows in order. */
  draws: Int32Array;
  /** [S] in (0, 1). */
  uniform: Float32Array;
  /** [S]; 0 takes the most likely token. */
  temperature: Float32Array;
  /** [S] draws are cut to the likeliest so many tokens; 0 keeps all. */
  topK: Int32Array;
  /** [S] then to the fewest that add up to this probability; 1 keeps all. */
  topP: Float32Array;
  /** [B] added to the mask's logit, for graphs that keep it. */
  maskBias: Float32Array;
}

/** What `tilt` is asked. */
export interface TiltInput extends DenoiseInput {
  /** [B] h, by which the reward's gradient is scaled. */
  scale: Float32Array;
}

/** What `denoise` answers. */
export interface DenoiseResult {
  /** [S] drawn ids. */
  token: Int32Array;
  /** [S] natural log-probabilities at temperature 1. */
  logprob: Float32Array;
  /** [P] nats. */
  entropy: Float32Array;
  /** Milliseconds the graph ran. */
  milliseconds: number;
}

/** What `score` answers. */
export interface ScoreResult {
  /** [B] */
  reward: Float32Array;
  /** Milliseconds the graph ran. */
  milliseconds: number;
}

/** What each graph is asked and answers. */
export interface Graphs {
  denoise: { input: DenoiseInput; result: DenoiseResult };
  tilt: { input: TiltInput; result: DenoiseResult & ScoreResult };
  score: { input: Canvases; result: ScoreResult };
}

export type GraphName = keyof Graphs;

/** A graph with what it is asked. */
export type Batch = { [G in GraphName]: { graph: G; input: Graphs[G]["input"] } }[GraphName];

/** How calls of several rows are divided. */
export interface Split {
  parts: number;
  /** Inside each part. */
  threads: number;
}

/** How a worker is to be set up. */
export interface WorkerOptions {
  /** Path of each graph that the model has, by where it ends up running. */
  graphs: Record<Provider, GraphPaths>;
  device: Device;
  /** Threads inside one call; 0 means one for each core. */
  threads: number;
  /** On the CPU, if calls are to be divided. */
  split?: Split | undefined;
}

/** Exit code of a worker that could not get the memory for a pass. */
export const OUT_OF_MEMORY = 71;

export type ToWorker =
  | { type: "load"; options: WorkerOptions }
  /** `everywhere`: in every session that may take a part of a call, one answer after the other. */
  | { type: "run"; id: number; batch: Batch; everywhere: boolean }
  | { type: "ping" };

export type FromWorker =
  | {
      type: "loaded";
      provider: Provider;
      /** Why CUDA was not taken, when `auto` fell back to the CPU. */
      fallback?: string;
    }
  | { type: "load-failed"; message: string }
  | { type: "pong" }
  | { type: "result"; id: number; result: Graphs[GraphName]["result"] }
  | { type: "failed"; id: number; message: string };
