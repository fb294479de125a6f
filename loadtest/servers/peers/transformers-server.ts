/**
 * Serve a causal model with Transformers.js: `node --import tsx transformers-server.ts FOLDER`.
 *
 * Waiting requests of the same length are generated as one batch: the library has no continuous batching.
 */

import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import Fastify from "fastify";

/** The settings of the peer, for the report. */
export type TransformersSettings = Record<string, string | number>;

/** The answer of POST /generate. */
export interface TransformersAnswer {
  tokens: number[];
}

/** The used part of the library, which is installed on demand, so that its own types may be missing. */
interface Library {
  env: { allowRemoteModels: boolean; localModelPath: string; version: string };
  AutoModelForCausalLM: {
    from_pretrained(
      name: string,
      options: object,
    ): Promise<{
      generation_config: object | null;
      generate(options: object): Promise<{ tolist(): bigint[][] }>;
    }>;
  };
  Tensor: new (type: string, data: BigInt64Array | Float32Array, dims: number[]) => object;
  DynamicCache: new (entries: Record<string, object>) => object;
}

/** Largest batch, and the milliseconds that its first request waits for others. */
const [MOST, GATHER_MS] = [32, 4];

const folder = process.argv[2]!;
const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as {
  bos_token_id: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  hidden_size: number;
};
const library = "@huggingface/transformers";
const { env, AutoModelForCausalLM, Tensor, DynamicCache } = (await import(library)) as Library;
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const model = await AutoModelForCausalLM.from_pretrained(basename(folder), {
  ...{ dtype: "fp32", device: "cpu", local_files_only: true },
  // The graph lies beside model.safetensors, which it reads.
  subfolder: "",
});

/**
 * Return an empty key-value cache. The library would derive its size from an input that the graph does not
 * have.
 */
function emptyCache(rows: number): object {
  const { num_hidden_layers, num_attention_heads, hidden_size } = config;
  const dims = [rows, num_attention_heads, 0, hidden_size / num_attention_heads];
  const names = Array.from({ length: num_hidden_layers }, (_, i) => [`${i}.key`, `${i}.value`]).flat();
  const entries = names.map((name) => [
    `past_key_values.${name}`,
    new Tensor("float32", new Float32Array(0), dims),
  ]);
  return new DynamicCache(Object.fromEntries(entries));
}

/**
 * Return `rows` samples of `length` tokens at temperature 1 from the whole vocabulary; an end of text does
 * not stop them.
 */
async function write(rows: number, length: number): Promise<number[][]> {
  const ids = (value: number) => new Tensor("int64", new BigInt64Array(rows).fill(BigInt(value)), [rows, 1]);
  const texts = await model.generate({
    ...{ inputs: ids(config.bos_token_id), attention_mask: ids(1), max_new_tokens: length, do_sample: true },
    ...{ temperature: 1, top_k: 0, eos_token_id: null, past_key_values: emptyCache(rows) },
  });
  return texts.tolist().map((text) => text.slice(1).map(Number));
}

interface Waiting {
  length: number;
  done: (tokens: number[]) => void;
  failed: (error: unknown) => void;
}
const waiting: Waiting[] = [];
let running = false;

async function work(): Promise<void> {
  if (running) return;
  running = true;
  while (waiting.length > 0) {
    await new Promise((resolve) => setTimeout(resolve, GATHER_MS));
    const { length } = waiting[0]!;
    const batch = waiting.filter((other) => other.length === length).slice(0, MOST);
    for (const taken of batch) waiting.splice(waiting.indexOf(taken), 1);
    try {
      const texts = await write(batch.length, length);
      for (const [i, { done }] of batch.entries()) done(texts[i]!);
    } catch (error) {
      for (const { failed } of batch) failed(error);
    }
  }
  running = false;
}

const app = Fastify();
app.post<{ Body: { length: number } }>("/generate", async ({ body: { length } }) => {
  const tokens = await new Promise<number[]>((done, failed) => {
    waiting.push({ length, done, failed });
    void work();
  });
  return { tokens } satisfies TransformersAnswer;
});
app.get("/settings", () => ({
  "Transformers.js": env.version,
  ...{
    runtime: "onnxruntime-node",
    precision: "fp32",
    cache: "key-value",
    sampling: "temperature 1, whole vocabulary",
  },
  batch: `requests that wait, at most ${MOST}, gathered for ${GATHER_MS} ms`,
}));
await write(1, 4);
await app.listen({ host: "127.0.0.1", port: 0 });
console.log(`ready at ${app.listeningOrigin}`);
