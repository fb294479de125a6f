/** ONNX Runtime sessions of a model's graphs. For workers only, since `run` blocks its thread. */

import ort from "onnxruntime-node";
import { explainCuda, lookForCuda } from "../cuda.ts";
import {
  type Batch,
  type DenoiseInput,
  type DenoiseResult,
  type GraphName,
  type Graphs,
  type Provider,
  scores,
  type WorkerOptions,
} from "../protocol.ts";

/** The loaded graphs of a model. */
export interface LoadedModel {
  provider: Provider;
  /** Why `auto` fell back to the CPU; absent if it did not. */
  fallback?: string;
  /**
   * Run a batch; with `everywhere`, in every session. Rejects if the model lacks the graph or the graph
   * fails.
   */
  run(batch: Batch, everywhere?: boolean): Promise<Graphs[GraphName]["result"]>;
}

// Errors are reported by the server in one line, not by the library in ten.
ort.env.logLevel = "fatal";

type Sessions = Partial<Record<GraphName, Promise<ort.InferenceSession>>>;

function create(path: string, options: WorkerOptions, provider: Provider): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(path, {
    executionProviders: [provider === "cpu" ? provider : { name: provider, deviceId: options.gpu ?? 0 }],
    graphOptimizationLevel: "all",
    intraOpNumThreads: options.threads,
    logSeverityLevel: 4,
    // An arena keeps what the largest batch of each session took. Without it, and without planning memory by
    // pattern, plain steps take as long and tilted ones 3% longer.
    ...(provider === "cpu" && { enableCpuMemArena: false, enableMemPattern: false }),
    // Otherwise its threads spin after a batch, on the cores that the parts of the next batch need.
    ...(options.split && { extra: { session: { force_spinning_stop: "1" } } }),
  });
}

const firstLine = (error: unknown) => String((error as Error)?.message ?? error).split("\n")[0]!;

/**
 * Load the graphs on a device. Throws if they cannot be loaded there.
 *
 * @param starting called with the provider before its sessions are created, which blocks this thread: work
 *   that it starts elsewhere runs meanwhile
 */
export async function loadModel(
  options: WorkerOptions,
  starting: (provider: Provider) => void = () => {},
): Promise<LoadedModel> {
  const load = async (provider: Provider): Promise<LoadedModel> => {
    starting(provider);
    const sessions: Sessions = {};
    const session = (graph: GraphName) => {
      const path = options.graphs[provider][graph];
      if (path === undefined) throw new Error(`the model has no graph ${graph}`);
      sessions[graph] ??= create(path, options, provider);
      return sessions[graph];
    };
    const graphs = Object.keys(options.graphs[provider]) as GraphName[];
    const atOnce = (graph: GraphName) =>
      graph === "denoise" || (!options.lazy && (graph === "tilt" || graph === "score"));
    for (const graph of graphs) if (atOnce(graph)) await session(graph);
    return { provider, run: async (batch) => run(await session(batch.graph), batch) };
  };
  if (options.device === "cpu") return load("cpu");
  try {
    return await load("cuda");
  } catch (error) {
    const reason = explainCuda(firstLine(error), { ...lookForCuda(), gpu: options.gpu });
    if (options.device === "auto") return { ...(await load("cpu")), fallback: reason };
    throw new Error(reason);
  }
}

function int64(values: Int32Array, dims: number[]): ort.Tensor {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
}

function float32(values: Float32Array, dims: number[]): ort.Tensor {
  return new ort.Tensor("float32", values, dims);
}

/** Return the inputs that `denoise` and `tilt` have in addition to `score`. */
function drawFeeds(input: DenoiseInput): Record<string, ort.Tensor> {
  const draws = [input.draws.length];
  return {
    picks: int64(input.picks, [input.picks.length / 2, 2]),
    draws: int64(input.draws, draws),
    uniform: float32(input.uniform, draws),
    temperature: float32(input.temperature, draws),
    top_k: int64(input.topK, draws),
    top_p: float32(input.topP, draws),
    mask_bias: float32(input.maskBias, [input.rows]),
    // Only its size is read.
    alternatives: int64(new Int32Array(input.alternatives), [input.alternatives]),
  };
}

/**
 * Return the inputs of a graph. How it was converted decides whether it has the inputs sigma and mask_bias
 * (models/model.schema.json).
 */
export function feedsOf(
  { inputNames }: Pick<ort.InferenceSession, "inputNames">,
  { input }: Batch,
): Record<string, ort.Tensor> {
  const feeds: Record<string, ort.Tensor> = {
    tokens: int64(input.tokens, [input.rows, input.padded]),
    length: int64(input.length, [input.rows]),
    sigma: float32(input.sigma, [input.rows]),
    ...("draws" in input ? drawFeeds(input) : {}),
    ...("scale" in input ? { scale: float32(input.scale, [input.rows]) } : {}),
  };
  return Object.fromEntries(inputNames.map((name) => [name, feeds[name]!]));
}

/** Return the most likely tokens. Throws if they are asked for and the graph was exported without them. */
function topOf(
  { input }: Batch,
  outputs: ort.InferenceSession.OnnxValueMapType,
  ids: (name: string) => Int32Array,
  floats: (name: string) => Float32Array,
): Pick<DenoiseResult, "topToken" | "topLogprob"> {
  if (!("alternatives" in input) || input.alternatives === 0)
    return { topToken: new Int32Array(), topLogprob: new Float32Array() };
  if (!outputs.top_token)
    throw new Error("the graph returns no most likely tokens: convert or export the model again");
  return { topToken: ids("top_token"), topLogprob: floats("top_logprob") };
}

async function run(session: ort.InferenceSession, batch: Batch): Promise<Graphs[GraphName]["result"]> {
  const { graph } = batch;
  const taken = feedsOf(session, batch);
  const started = performance.now();
  const outputs = await session.run(taken);
  const milliseconds = performance.now() - started;
  const floats = (name: string) => Float32Array.from(outputs[name]!.data as Float32Array);
  if (scores(graph)) return { reward: floats("reward"), milliseconds };
  const ids = (name: string) => Int32Array.from(outputs[name]!.data as BigInt64Array, Number);
  const drawn = {
    token: ids("token"),
    logprob: floats("logprob"),
    entropy: floats("entropy"),
    ...topOf(batch, outputs, ids, floats),
    milliseconds,
  };
  return graph === "tilt" ? { ...drawn, reward: floats("reward") } : drawn;
}
