/** Traces, collected by OpenTelemetry's SDK. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as api from "@opentelemetry/api";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import type { FastifyInstance } from "fastify";
import { ModelRegistry } from "../../../src/engine/models/registry.ts";
import { buildApp } from "../../../src/server/app.ts";
import { createTracing, loadTracing } from "../../../src/server/telemetry/tracing.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";
import { post } from "../../support/http.ts";
import { listen, StreamClient } from "../support.ts";

const exporter = new InMemorySpanExporter();
const engine = await startEngine({}, TINY_GUIDED);
let app: FastifyInstance;
let origin: string;
after(async () => {
  await app.close();
  api.trace.disable();
  api.propagation.disable();
});

/** Return the spans once `count` requests have ended. */
async function spansOf(count: number, act: () => Promise<unknown>) {
  exporter.reset();
  await act();
  const requests = () => exporter.getFinishedSpans().filter(({ name }) => !name.startsWith("step "));
  while (requests().length < count) await sleep(5);
  const steps = exporter.getFinishedSpans().filter(({ name }) => name.startsWith("step "));
  return { requests: requests(), steps };
}

const generate = (body: object, headers?: Record<string, string>) =>
  post(`${origin}/generate`, { prompt: "Once", length: 12, steps: 4, ...body }, headers).then((answer) =>
    answer.json(),
  );

const linked = (step: ReadableSpan) => step.links.map(({ context }) => context.spanId);

test("without an SDK nothing is traced", async () => {
  const { origin } = await listen(engine);
  assert.equal((await fetch(`${origin}/healthz`)).status, 200);
  assert.equal(exporter.getFinishedSpans().length, 0);
});

test("without the API there is no tracing, and a broken API is an error", async () => {
  const missing = Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" });
  assert.equal(await loadTracing(() => Promise.reject(missing)), undefined);
  await assert.rejects(
    loadTracing(() => Promise.reject(new SyntaxError("broken"))),
    /broken/,
  );
  assert.equal(typeof createTracing((await loadTracing())!, new ModelRegistry(engine)).end, "function");
});

test("a request has a span under the client's span, with its figures", async () => {
  api.trace.setGlobalTracerProvider(
    new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }),
  );
  api.propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  // Of all tests from here on: `listen` would close it after this one.
  app = await buildApp(new ModelRegistry(engine));
  origin = await app.listen({ host: "127.0.0.1", port: 0 });
  const trace = "0af7651916cd43dd8448eb211c80319c";
  const { requests } = await spansOf(1, () =>
    generate(
      { guidance: { mode: "rgas", rerank_ratio: 0.5 } },
      { traceparent: `00-${trace}-b7ad6b7169203331-01` },
    ),
  );
  const [span] = requests;
  assert.equal(requests.length, 1);
  assert.equal(span!.name, "POST /generate");
  assert.equal(span!.kind, api.SpanKind.SERVER);
  assert.equal(span!.spanContext().traceId, trace);
  assert.equal(span!.parentSpanContext?.spanId, "b7ad6b7169203331");
  const { attributes } = span!;
  assert.equal(attributes["http.response.status_code"], 200);
  assert.equal(attributes["gen_ai.usage.output_tokens"], 12);
  assert.equal(attributes["didi.steps"], 4);
  assert.ok(Number(attributes["didi.passes.student"]) >= 1);
  assert.ok(Number(attributes["didi.passes.gradient"]) >= 1);
  assert.ok(Number(attributes["didi.queue_ms"]) >= 0);
  assert.ok(!JSON.stringify(attributes).includes("Once"));
});

test("each batch has a span that is linked to its requests", async () => {
  const { requests, steps } = await spansOf(2, () =>
    Promise.all([generate({ seed: 1 }), generate({ seed: 2 })]),
  );
  const ids = requests.map((span) => span.spanContext().spanId);
  assert.equal(new Set(ids).size, 2);
  for (const id of ids) {
    const own = steps.filter((step) => linked(step).includes(id));
    // One for each pass, each within the time of its request.
    const span = requests.find((one) => one.spanContext().spanId === id)!;
    assert.equal(own.length, span.attributes["didi.passes.student"]);
    for (const step of own) {
      const [from, to] = [toMs(step.startTime), toMs(step.endTime)];
      assert.ok(from >= toMs(span.startTime) - 2 && to <= toMs(span.endTime) + 2);
      assert.ok(to - from >= Number(step.attributes["didi.batch.graph_ms"]) - 2);
    }
  }
  for (const step of steps) {
    assert.equal(step.name, "step denoise");
    assert.equal(step.parentSpanContext, undefined);
    assert.ok(linked(step).every((id) => ids.includes(id)));
    assert.equal(linked(step).length, step.attributes["didi.batch.rows"]);
  }
});

test("a refused request has an error in its span; a message is a child of its socket", async () => {
  const { requests: refused } = await spansOf(1, () => generate({ steps: 0 }));
  assert.equal(refused[0]!.attributes["error.type"], "invalid-request");
  assert.equal(refused[0]!.status.code, api.SpanStatusCode.UNSET);
  const { requests } = await spansOf(2, async () => {
    const client = await StreamClient.connect(origin);
    client.send({ type: "generate", id: "a", prompt: "", length: 12, steps: 2 });
    await client.end("a");
    client.socket.close();
    await client.closed;
  });
  const [message, socket] = requests;
  assert.deepEqual([message!.name, socket!.name], ["message", "GET /generate/stream"]);
  assert.equal(message!.parentSpanContext?.spanId, socket!.spanContext().spanId);
  assert.equal(message!.attributes["gen_ai.usage.output_tokens"], 12);
  assert.equal(socket!.attributes["http.response.status_code"], 101);
});

/** A time of the SDK, [seconds, nanoseconds], in milliseconds. */
function toMs([seconds, nanoseconds]: api.HrTime): number {
  return seconds * 1000 + nanoseconds / 1e6;
}
