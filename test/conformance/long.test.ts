/** Canvases of up to 4,096 tokens, on a small model with that context. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { startEngine, TINY_LONG } from "../support/engine.ts";

const engine = await startEngine({ maxBatchTokens: 4096 }, TINY_LONG);

test("long canvases are the same together and alone", async () => {
  // 513 and 550 share the padded length 576, 1100 and 1150 share 1152.
  const requests = [4096, 513, 1100, 550, 1150, 2049].map(
    (length, seed): GenerateRequest => ({ prompt: "", length, steps: 2, seed, logprobs: true, trace: true }),
  );
  const answerOf = async (request: GenerateRequest) => {
    const { samples, receipt } = await engine.submit(request).result;
    assert.equal(samples[0]!.tokens.length, request.length);
    return { samples, receipt };
  };
  const alone = [];
  for (const request of requests) alone.push(await answerOf(request));
  const sizes = new Set<string>();
  engine.on("batch", ({ rows, paddedTokens }) => sizes.add(`${rows} x ${paddedTokens / rows}`));
  assert.deepEqual(await Promise.all(requests.map(answerOf)), alone);
  for (const size of ["1 x 4096", "2 x 576", "2 x 1152"]) assert.ok(sizes.has(size), [...sizes].join());
});
