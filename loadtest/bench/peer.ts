/** The autoregressive peer: a causal model with a key-value cache on the same runtime, one token a pass. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import ort from "onnxruntime-node";
import type { Server } from "../servers/server.ts";
import { ratios } from "../traffic/statistics.ts";
import { interleave, range, tableHead, tableRow } from "./measure.ts";
import { served } from "./requests.ts";

interface PeerConfig {
  num_hidden_layers: number;
  num_attention_heads: number;
  hidden_size: number;
  vocab_size: number;
  bos_token_id: number;
}

/** An index drawn from softmax(logits[from, from + size)). */
function draw(logits: Float32Array, from: number, size: number): number {
  let top = Number.NEGATIVE_INFINITY;
  for (let i = from; i < from + size; i++) top = Math.max(top, logits[i]!);
  const weights = new Float64Array(size);
  let total = 0;
  for (let i = 0; i < size; i++) {
    total += Math.exp(logits[from + i]! - top);
    weights[i] = total;
  }
  const uniform = Math.random() * total;
  return weights.findIndex((sum) => sum >= uniform);
}

/** A causal model in the layout of Hugging Face's tools. */
export class Peer {
  private constructor(
    readonly session: ort.InferenceSession,
    readonly config: PeerConfig,
  ) {}

  static async open(folder: string): Promise<Peer> {
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as PeerConfig;
    const session = await ort.InferenceSession.create(join(folder, "onnx", "model.onnx"), {
      graphOptimizationLevel: "all",
    });
    return new Peer(session, config);
  }

  /** Writes `rows` texts of `length` tokens side by side, at temperature 1; returns seconds. */
  async write(rows: number, length: number): Promise<number> {
    const { num_hidden_layers, num_attention_heads, hidden_size, vocab_size, bos_token_id } = this.config;
    const empty = [rows, num_attention_heads, 0, hidden_size / num_attention_heads];
    const names = Array.from({ length: num_hidden_layers }, (_, i) => [`${i}.key`, `${i}.value`]).flat();
    let cache = Object.fromEntries(
      names.map((name) => [`past_key_values.${name}`, new ort.Tensor("float32", new Float32Array(0), empty)]),
    );
    let tokens = BigInt64Array.from({ length: rows }, () => BigInt(bos_token_id));
    const started = performance.now();
    for (let position = 0; position < length; position++) {
      const attended = BigInt64Array.from({ length: rows * (position + 1) }, () => 1n);
      const outputs = await this.session.run({
        input_ids: new ort.Tensor("int64", tokens, [rows, 1]),
        attention_mask: new ort.Tensor("int64", attended, [rows, position + 1]),
        position_ids: new ort.Tensor("int64", new BigInt64Array(rows).fill(BigInt(position)), [rows, 1]),
        ...cache,
      });
      const logits = outputs.logits!.data as Float32Array;
      tokens = BigInt64Array.from({ length: rows }, (_, row) =>
        BigInt(draw(logits, row * vocab_size, vocab_size)),
      );
      cache = Object.fromEntries(
        names.map((name) => [
          `past_key_values.${name}`,
          outputs[`present.${name}`] as ort.TypedTensor<"float32">,
        ]),
      );
    }
    return (performance.now() - started) / 1000;
  }
}

/** Tokens a second of the served student at some budgets beside the peer's, at batches of 1 and 8. */
export async function againstPeer(
  { origin }: Server,
  folder: string,
  length: number,
  steps: readonly number[],
  repeats: number,
): Promise<void> {
  const peer = await Peer.open(folder);
  console.log(
    `\nTokens a second, ${length} new tokens; median of ${repeats} (lowest to highest). The peer runs bare: no server around it\n`,
  );
  tableHead("side by side", "steps", "served student", "autoregressive peer", "times as fast");
  for (const rows of [1, 8])
    for (const budget of steps) {
      await served(origin, rows, 1, length, budget);
      await peer.write(rows, 8);
      const [ours, theirs] = (await interleave(
        repeats,
        () => served(origin, rows, 3, length, budget),
        async () => (rows * length) / (await peer.write(rows, length)),
      )) as [number[], number[]];
      tableRow(rows, budget, range(ours, 0), range(theirs, 0), range(ratios(ours, theirs), 2));
    }
}
