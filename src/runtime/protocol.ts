/** Messages between the server and a worker: structured clones over IPC. */

import type { GraphPaths, RewardGraph } from "../model/model.ts";

/** Where a graph runs. */
export type Provider = "cpu" | "cuda";

/** Value of `--device`; `auto` takes CUDA where it loads. */
export type Device = "auto" | Provider;

/** Canvases of one batch, padded to the same length; the input of `score`. */
export interface Canvases {
  /** B */
  rows: number;
  /** L, the padded length */
  padded: number;
  /** [B, L] ids, padding included. */
  tokens: Int32Array;
  /** [B] canvas lengths without padding. */
  length: Int32Array;
  /** [B] noise level; unused by graphs without that input */
  sigma: Float32Array;
}

/** Input of `denoise`. */
export interface DenoiseInput extends Canvases {
  /** [P, 2] (row, position) where the output head runs, ordered by row */
  picks: Int32Array;
  /** [S] index into picks of each draw, ordered by row */
  draws: Int32Array;
  /** [S] in (0, 1) */
  uniform: Float32Array;
  /** [S] 0 takes the most likely token */
  temperature: Float32Array;
  /** [S] sample from the k most likely tokens; 0 disables */
  topK: Int32Array;
  /** [S] then from the fewest tokens that add up to this probability; 1 disables */
  topP: Float32Array;
  /** [B] added to the logit of the mask; unused by graphs without that input */
  maskBias: Float32Array;
  /** K, the number of most likely tokens to return at each pick; 0 for none */
  alternatives: number;
}

/** Input of `tilt`. */
export interface TiltInput extends DenoiseInput {
  /** [B] h, the scale of the gradient of the reward */
  scale: Float32Array;
}

/** Result of `denoise`. */
export interface DenoiseResult {
  /** [S] drawn ids */
  token: Int32Array;
  /** [S] natural log-probabilities at temperature 1 */
  logprob: Float32Array;
  /** [P] nats */
  entropy: Float32Array;
  /** [P, K] the most likely ids of each pick, best first, and their log-probabilities at temperature 1 */
  topToken: Int32Array;
  topLogprob: Float32Array;
  /** Milliseconds that the graph ran. */
  milliseconds: number;
}

/** Result of `score`. */
export interface ScoreResult {
  /** [B] */
  reward: Float32Array;
  /** Milliseconds that the graph ran. */
  milliseconds: number;
}

/** Input and result of each graph. */
export interface Graphs {
  denoise: { input: DenoiseInput; result: DenoiseResult };
  tilt: { input: TiltInput; result: DenoiseResult & ScoreResult };
  score: { input: Canvases; result: ScoreResult };
  [reward: RewardGraph]: { input: Canvases; result: ScoreResult };
}

export type GraphName = keyof Graphs;

/** Return true for a graph that scores canvases. */
export function scores(graph: GraphName): graph is "score" | RewardGraph {
  return graph !== "denoise" && graph !== "tilt";
}

/** A graph with its input. */
export type Batch = { [G in GraphName]: { graph: G; input: Graphs[G]["input"] } }[GraphName];

/** How a worker divides a batch over threads. */
export interface Split {
  parts: number;
  /** ONNX Runtime threads of each part. */
  threads: number;
}

/** Configuration of a worker. */
export interface WorkerOptions {
  /** Paths of the graphs, by provider. */
  graphs: Record<Provider, GraphPaths>;
  device: Device;
  /** Index of the GPU for CUDA, among those that the process may see; default 0. */
  gpu?: number | undefined;
  /** ONNX Runtime threads; 0 means one for each core. */
  threads: number;
  /** Divide batches on the CPU; undefined runs them whole. */
  split?: Split | undefined;
  /** Load the graphs of guidance with their first batch, for less memory where none is guided. */
  lazy?: boolean | undefined;
}

/** Exit code of a worker that ran out of memory. */
export const OUT_OF_MEMORY = 71;

export type ToWorker =
  | { type: "load"; options: WorkerOptions }
  /** `everywhere`: run it whole in every session of the worker. */
  | { type: "run"; id: number; batch: Batch; everywhere: boolean }
  | { type: "ping" };

export type FromWorker =
  | {
      type: "loaded";
      provider: Provider;
      /** Why `auto` fell back to the CPU. */
      fallback?: string;
    }
  | { type: "load-failed"; message: string }
  | { type: "pong" }
  | { type: "result"; id: number; result: Graphs[GraphName]["result"] }
  | { type: "failed"; id: number; message: string };
