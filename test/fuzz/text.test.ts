/** Properties of tokenizer, templates and parsers. */

import assert from "node:assert/strict";
import { before, test } from "node:test";
import fc from "fast-check";
import { EventParser } from "../../src/client/event-parser.ts";
import { layoutOf } from "../../src/engine/layout.ts";
import { InvalidRequestError } from "../../src/errors.ts";
import { decodeRun } from "../../src/model/byte-level.ts";
import { type Model, openModel } from "../../src/model/model.ts";
import { parseLastEventId } from "../../src/server/streaming/sse.ts";
import { MODEL } from "../support/engine.ts";
import { RUNS } from "./support.ts";

let model: Model;
before(async () => {
  model = await openModel(MODEL);
});

/** Any string, lone surrogates included. */
const anyText = fc.string({ unit: "binary", maxLength: 200 });
const wellFormed = fc.string({ unit: "grapheme", maxLength: 120 });

test("encoding and decoding any well-formed text returns it", () => {
  fc.assert(
    fc.property(wellFormed, (text) => {
      const ids = model.tokenizer.encode(text, 100_000)!;
      assert.equal(model.tokenizer.decode(ids), text);
      assert.ok(ids.every((id) => id < model.manifest.mask_token_id));
    }),
    RUNS,
  );
});

test("encoding any string gives ids of the vocabulary", () => {
  fc.assert(
    fc.property(anyText, (text) => {
      for (const id of model.tokenizer.encode(text, 100_000)!)
        assert.ok(Number.isInteger(id) && id >= 0 && id < model.manifest.mask_token_id);
    }),
    RUNS,
  );
});

test("tokens of any bytes can be decoded in any context", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.boolean(), fc.boolean(), (bytes, left, right) => {
      const text = decodeRun(bytes, left, right);
      assert.doesNotMatch(text, /\p{Surrogate}/u);
    }),
    RUNS,
  );
});

/** Run a function that may only throw InvalidRequestError. */
function orRefused<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    assert.ok(error instanceof InvalidRequestError, String(error));
    return undefined;
  }
}

const span = fc.integer({ min: 0, max: 40 }).map((n) => `{{mask:${n}}}`);
const fragment = fc.oneof(
  span,
  anyText,
  fc.constantFrom("{{", "}}", "{{mask", "{{mask:", "{{mask:1e2}}", "{", "[MASK]"),
);

test("a template is refused, or its texts are unchanged and its spans are masked", () => {
  let accepted = 0;
  fc.assert(
    fc.property(fc.array(fragment, { maxLength: 8 }), (parts) => {
      const template = parts.join("");
      const layout = orRefused(() => layoutOf(model, { template }));
      if (!layout) return;
      accepted++;
      const again = layout.pieces.map((piece) =>
        piece.kind === "text" ? piece.text : `{{mask:${piece.length}}}`,
      );
      assert.equal(again.join(""), template);
      const masked = layout.canvas.filter((id) => id === model.manifest.mask_token_id).length;
      assert.equal(
        masked,
        layout.pieces.reduce((sum, piece) => sum + (piece.kind === "span" ? piece.length : 0), 0),
      );
    }),
    RUNS,
  );
  assert.ok(accepted > 20, `${accepted} accepted`);
});

test("any token ids are refused, or are the canvas", () => {
  const id = fc.oneof(fc.integer({ min: 0, max: 4095 }), fc.nat(), fc.double({ min: 0, noNaN: true }));
  fc.assert(
    fc.property(fc.array(id, { minLength: 1, maxLength: 300 }), (ids) => {
      const tokens = ids.map(Math.floor);
      const layout = orRefused(() => layoutOf(model, { tokens }));
      if (layout) assert.deepEqual(layout.canvas, tokens);
    }),
    RUNS,
  );
});

test("any Last-Event-ID is refused, or gives seed and steps", () => {
  const near = fc
    .tuple(fc.nat(), fc.array(fc.nat({ max: 99_999 }), { maxLength: 20 }))
    .map(([seed, steps]) => `${seed}:${steps}`);
  fc.assert(
    fc.property(fc.oneof(anyText, near), fc.option(fc.nat(), { nil: undefined }), (header, seed) => {
      const progress = orRefused(() => parseLastEventId(header, seed));
      if (!progress) return;
      assert.ok(Number.isSafeInteger(progress.seed));
      assert.ok(progress.steps.every((step) => Number.isSafeInteger(step) && step >= 0));
    }),
    RUNS,
  );
});

test("events do not depend on how the stream is divided into pieces", () => {
  const line = fc.oneof(
    fc.constantFrom("", "data: a", "data", "id: 1:2", ": comment", "event: step", "data:  b", ":"),
    fc.string({ maxLength: 12 }).map((text) => text.replaceAll(/[\r\n]/g, "")),
  );
  const end = fc.constantFrom("\n", "\r\n", "\r");
  const stream = fc.array(fc.tuple(line, end), { maxLength: 30 }).map((lines) => lines.flat().join(""));
  fc.assert(
    fc.property(stream, fc.array(fc.nat({ max: 200 }), { maxLength: 10 }), (text, cuts) => {
      const whole = `${text}\n\n`;
      const expected = new EventParser().push(whole);
      const parser = new EventParser();
      const bounds = [0, ...cuts.filter((cut) => cut < whole.length).toSorted((a, b) => a - b), whole.length];
      const received = bounds.slice(1).flatMap((bound, i) => parser.push(whole.slice(bounds[i], bound)));
      assert.deepEqual(received, expected);
    }),
    RUNS,
  );
});
