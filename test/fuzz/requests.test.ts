/**
 * Properties of the API: every request gets an answer of openapi.yaml, and never a server error.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Schemas, validator } from "../../src/server/openapi.ts";
import { listen, type ServerEvent, StreamClient, serve } from "../server/support.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { anyValue, bodyText, FEW_RUNS, RUNS } from "./support.ts";

const { engine, app } = await serve({}, TINY_GUIDED);

const isProblem = validator("Problem");

test("POST /generate answers 200 or a client error", async () => {
  const seen = new Set<number>();
  await fc.assert(
    fc.asyncProperty(bodyText, async (payload) => {
      const response = await app.inject({
        method: "POST",
        url: "/generate",
        headers: { "content-type": "application/json" },
        payload,
      });
      seen.add(response.statusCode);
      assert.ok([200, 400, 413].includes(response.statusCode), `${response.statusCode} ${response.body}`);
      if (response.statusCode !== 200) assert.ok("value" in isProblem(response.json()), response.body);
    }),
    FEW_RUNS,
  );
  assert.deepEqual(
    [...seen].toSorted(),
    [200, 400, 413].filter((status) => seen.has(status)),
  );
  assert.ok(seen.has(200) && seen.has(400));
});

test("any text as a body is answered without a server error", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.string({ unit: "binary", maxLength: 100 }), fc.json()),
      fc.constantFrom("/generate", "/v1/completions", "/v2/models/tiny-guided/infer"),
      async (payload, url) => {
        const headers = { "content-type": "application/json" };
        const { statusCode, body } = await app.inject({ method: "POST", url, headers, payload });
        assert.ok(statusCode >= 400 && statusCode < 500, `${statusCode} ${body}`);
      },
    ),
    FEW_RUNS,
  );
});

test("any Accept header is answered with JSON or with events", async () => {
  const range = fc.oneof(
    fc.constantFrom(
      "text/event-stream",
      "application/json",
      "*/*",
      "text/*",
      "text/event-stream;q=0",
      ";q=",
      '"',
    ),
    fc.string({ maxLength: 12 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(range, { maxLength: 4 }), async (ranges) => {
      const accept = ranges.join(", ").replaceAll(/[^\x20-\x7e]/g, "");
      const payload = { prompt: "a", length: 1, steps: 1 };
      const { statusCode, headers } = await app.inject({
        ...{ method: "POST", url: "/generate", payload },
        headers: { accept },
      });
      assert.equal(statusCode, 200, accept);
      assert.match(headers["content-type"] as string, /^(application\/json|text\/event-stream);/);
    }),
    FEW_RUNS,
  );
});

test("the validators accept any value without throwing", () => {
  const checks = (
    ["GenerateRequest", "CompletionRequest", "InferenceRequest", "GenerateMessage"] as const
  ).map(validator);
  fc.assert(
    fc.property(
      fc.oneof(
        anyValue,
        bodyText.map((text) => JSON.parse(text)),
      ),
      (content) => {
        for (const check of checks) {
          const checked = check(structuredClone(content));
          if ("errors" in checked) assert.ok(checked.errors.length > 0 && checked.errors.length <= 21);
        }
      },
    ),
    RUNS,
  );
});

test("of many errors in a body twenty are reported; of a hundred thousand values, the first error", () => {
  const check = validator("GenerateRequest");
  const faults = (count: number) => [
    { prompt_tokens: Array.from({ length: count }, () => "x") },
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`f${i}`, 0])),
  ];
  for (const body of faults(900)) {
    const checked = check(body);
    assert.ok("errors" in checked);
    assert.equal(checked.errors.length, 21);
    assert.match(checked.errors.at(-1)!.message, /^has \d+ more faults$/);
  }
  for (const body of faults(65_536)) {
    const checked = check(body);
    assert.ok("errors" in checked);
    assert.equal(checked.errors.length, 1);
  }
});

test("a socket answers every message with an event of the contract", async () => {
  const isEvent = validator("ServerEvent");
  const { app: listening, origin } = await listen(engine);
  const client = await StreamClient.connect(origin);
  const id = fc.oneof(fc.constant('"x"'), fc.json({ maxDepth: 1 }));
  const message = fc
    .tuple(bodyText, fc.constantFrom("generate", "generate", "cancel", "other"), id)
    .map(([body, type, name]) => `{"type":"${type}","id":${name},${body.slice(1)}`);
  await fc.assert(
    fc.asyncProperty(fc.oneof(message, fc.string({ unit: "binary", maxLength: 40 })), async (text) => {
      client.events.length = 0;
      client.send(text);
      const end = await client.find(
        (event): event is ServerEvent => event.type === "done" || event.type === "error",
      );
      assert.ok(
        end.type === "done" || (end as Schemas["ErrorEvent"]).error.status < 500,
        JSON.stringify(end),
      );
      for (const event of client.events)
        assert.ok("value" in isEvent(structuredClone(event)), JSON.stringify(event));
    }),
    FEW_RUNS,
  );
  client.socket.close();
  await listening.close();
});
