/** A researcher follows docs/bring-a-model.md on a fresh clone. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { outputOf, walk } from "./walk.ts";

test("a researcher gets from a checkpoint to a guided text with its rewards within 10 minutes", async (t) => {
  const page = "docs/bring-a-model.md";
  const { ran } = await walk(t, page, 10 * 60_000, "The published checkpoint");
  const rewards = outputOf(ran, /^curl -s .*\/generate/);
  assert.equal(rewards.match(/^"kind":"tilt","rewards":\[-?[\d.e-]+\]$/gm)?.length, 4, rewards);
  const reranked = rewards.match(/^"kind":"rerank","rewards":\[(-?[\d.e-]+,?){4}\],"chosen":[0-3]$/gm);
  assert.equal(reranked?.length, 4, rewards);
});
