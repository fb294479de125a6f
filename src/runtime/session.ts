/** An ONNX Runtime session of one graph. Runs in the runtime process only: `run` blocks its thread. */

import ort from "onnxruntime-node";
import type { DenoiseBatch, DenoiseResult, Provider, RuntimeOptions } from "./protocol.ts";

/** A loaded `denoise` graph. */
export interface LoadedSession {
  provider: Provider;
  /** Why CUDA was not taken, when `auto` fell back to the CPU. */
  fallback?: string;
  denoise(batch: DenoiseBatch): Promise<DenoiseResult>;
}

// A provider that does not load is reported by us, in one line, not by the library in ten.
ort.env.logLevel = "fatal";

async function create(options: RuntimeOptions, provider: Provider): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(options.graph[provider], {
    executionProviders: [provider],
    graphOptimizationLevel: "all",
    intraOpNumThreads: options.threads,
    logSeverityLevel: 4,
  });
}

const firstLine = (error: unknown) => String((error as Error)?.message ?? error).split("\n")[0]!;

/** Loads the graph on the device asked for. Throws if it cannot be loaded there. */
export async function loadSession(options: RuntimeOptions): Promise<LoadedSession> {
  const load = async (provider: Provider): Promise<LoadedSession> => {
    const session = await create(options, provider);
    return { provider, denoise: (batch) => denoise(session, batch) };
  };
  if (options.device === "cpu") return load("cpu");
  try {
    return await load("cuda");
  } catch (error) {
    const reason = firstLine(error);
    if (options.device === "auto") return { ...(await load("cpu")), fallback: reason };
    throw new Error(
      `CUDA does not load (${reason}): run \`npm run cuda\` to add the CUDA binaries, or use --device cpu`,
    );
  }
}

function int64(values: Int32Array, dims: number[]): ort.Tensor {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
}

async function denoise(session: ort.InferenceSession, batch: DenoiseBatch): Promise<DenoiseResult> {
  const draws = batch.draws.length;
  const feeds: Record<string, ort.Tensor> = {
    tokens: int64(batch.tokens, [batch.rows, batch.padded]),
    length: int64(batch.length, [batch.rows]),
    picks: int64(batch.picks, [batch.picks.length / 2, 2]),
    draws: int64(batch.draws, [draws]),
    uniform: new ort.Tensor("float32", batch.uniform, [draws]),
    temperature: new ort.Tensor("float32", batch.temperature, [draws]),
    top_k: int64(batch.topK, [draws]),
    top_p: new ort.Tensor("float32", batch.topP, [draws]),
  };
  // What a graph takes beyond that depends on how it was converted (models/model.schema.json).
  const takes = (name: string) => session.inputNames.includes(name);
  if (takes("sigma")) feeds.sigma = new ort.Tensor("float32", batch.sigma, [batch.rows]);
  if (takes("mask_bias")) feeds.mask_bias = new ort.Tensor("float32", batch.maskBias, [batch.rows]);
  const started = performance.now();
  const { token, logprob, entropy } = await session.run(feeds);
  const milliseconds = performance.now() - started;
  return {
    token: Int32Array.from(token!.data as BigInt64Array, Number),
    logprob: Float32Array.from(logprob!.data as Float32Array),
    entropy: Float32Array.from(entropy!.data as Float32Array),
    milliseconds,
  };
}
