/**
 * A row has the same bits in int8 alone and beside others, with any threads, divided or whole, as in float32.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { openModel } from "../../src/model/model.ts";
import { dotProducts } from "../../src/model/precision.ts";
import { WorkerPool } from "../../src/runtime/pool.ts";
import type { WorkerOptions } from "../../src/runtime/protocol.ts";
import { LIMITS, MODEL } from "../support/engine.ts";

const skip = dotProducts() === undefined && "the processor has no 8-bit dot products";

const guidance: NonNullable<GenerateRequest["guidance"]> = {
  mode: "rgas",
  scale: [20],
  candidates: 3,
  rerank_ratio: 0.5,
};
const REQUESTS: GenerateRequest[] = Array.from({ length: 6 }, (_, i) => ({
  prompt: "Once upon a time".slice(0, 4 * i),
  length: 30 + 7 * i,
  steps: 4,
  seed: i,
  temperature: 1,
  ...(i % 2 === 1 && { guidance }),
}));

/** Return the answers of the requests, concurrent and one after the other. */
async function answers(options: Pick<WorkerOptions, "threads" | "split">): Promise<string[][]> {
  const model = await openModel(MODEL, "int8");
  const pool = await WorkerPool.start({ graphs: model.graphs, device: "cpu", ...options }, 1);
  const engine = new Engine(model, pool, LIMITS);
  try {
    await engine.warmUp();
    const answer = async (request: GenerateRequest) => {
      const { receipt } = await engine.submit(request).result;
      assert.equal(receipt.precision, "int8");
      return receipt.trace_sha256;
    };
    const together = await Promise.all(REQUESTS.map(answer));
    const alone: string[] = [];
    for (const request of REQUESTS) alone.push(await answer(request));
    return [together, alone];
  } finally {
    await pool.close();
  }
}

test("a request has the same steps, bit for bit, in any batch and division", { skip }, async () => {
  const [together, alone] = await answers({ threads: 1 });
  assert.equal(new Set(together).size, REQUESTS.length);
  assert.deepEqual(alone, together);
  for (const options of [{ threads: 2 }, { threads: 1, split: { parts: 2, threads: 1 } }])
    assert.deepEqual(await answers(options), [together, together]);
});
