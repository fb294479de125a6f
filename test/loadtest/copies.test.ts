/** What each call copies to the device and back: ids and draws, never logits. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { countCopies } from "../../loadtest/device/copies.ts";
import { openModel } from "../../src/model/model.ts";
import { MODEL } from "../support/engine.ts";

test("a call copies a few kilobytes", async () => {
  const [rows, length] = [8, 128];
  const draws = rows * (length / 16);
  const canvases = 8 * rows * length + 8 * rows;
  // The tensors of alternatives are empty. Of a draw: row and position, pick, uniform number, temperature, top_k, top_p.
  const drawn = draws * (16 + 8 + 4 + 4 + 8 + 4);
  const result = draws * (8 + 4 + 4);
  assert.deepEqual(await countCopies(await openModel(MODEL, "fp32"), length, rows), [
    {
      graph: "denoise",
      rows,
      in: { tensors: 9, bytes: canvases + drawn },
      out: { tensors: 5, bytes: result },
    },
    {
      graph: "tilt",
      rows,
      in: { tensors: 10, bytes: canvases + drawn + 4 * rows },
      out: { tensors: 6, bytes: result + 4 * rows },
    },
    { graph: "score", rows, in: { tensors: 2, bytes: canvases }, out: { tensors: 1, bytes: 4 * rows } },
  ]);
});
