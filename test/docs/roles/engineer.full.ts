/** An engineer follows docs/start.md on a fresh clone. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { outputOf, walk } from "./walk.ts";

test("an engineer streams an answer by curl, WebSocket and OpenAI's client within 5 minutes", async (t) => {
  const { ran } = await walk(t, "docs/start.md", 5 * 60_000);
  assert.equal(JSON.parse(outputOf(ran, /^curl -s http/)).samples[0].tokens.length, 64);
  const events = outputOf(ran, /^curl -sN/);
  assert.equal(events.match(/^event: step$/gm)?.length, 4);
  assert.match(events, /^event: done$/m);
  const steps = outputOf(ran, /^node stream\.mjs/).match(/^\d+\/32 \S/gm);
  assert.equal(steps?.length, 32);
  // The same text twice: at once and followed by a line break, then in pieces.
  const text = outputOf(ran, /^node completion\.mjs/);
  const half = text.slice(0, (text.length - 1) / 2);
  assert.ok(half.length > 20);
  assert.equal(text, `${half}\n${half}`);
});
