/** Prometheus metrics of the engine, of requests and of the process. */

import { createRequire } from "node:module";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { repeatedShare, unigramEntropy } from "../../engine/answers/diversity.ts";
import type { Engine } from "../../engine/engine.ts";
import { VERSION } from "../openapi.ts";
import { whyNotReady } from "../readiness.ts";
import type { TelemetrySink } from "./record.ts";
import { requestMetrics } from "./request-metrics.ts";

const SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120];
const SHARES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
const NATS = [0.25, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 10];

/** Shortest sample, in tokens, whose repetition is measured. */
const LEAST_TOKENS = 16;
/** Length in tokens of a repeated run. */
const RUN = 3;

/** Metrics of prom-client that are sums of others, gauges with the names of counters. */
const SUMS = ["nodejs_active_handles_total", "nodejs_active_resources_total", "nodejs_active_requests_total"];

const ORT_VERSION: string = createRequire(import.meta.url)("onnxruntime-node/package.json").version;

/** Creates metrics in one registry. */
class Maker {
  readonly registry = new Registry();
  readonly #registers = [this.registry];

  counter<L extends string>(name: string, help: string, ...labelNames: L[]): Counter<L> {
    return new Counter({ name, help, labelNames, registers: this.#registers });
  }

  histogram<L extends string>(name: string, help: string, buckets: number[], ...labelNames: L[]) {
    return new Histogram<L>({ name, help, buckets, labelNames, registers: this.#registers });
  }

  /** Add a gauge that calls `read` at each scrape. */
  gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: this.#registers,
      collect() {
        this.set(read());
      },
    });
  }

  /** Add a gauge with the value 1 and the labels of `read`. */
  info(name: string, help: string, labelNames: string[], read: () => Record<string, string>): void {
    new Gauge({
      name,
      help,
      labelNames,
      registers: this.#registers,
      collect() {
        this.reset();
        this.set(read(), 1);
      },
    });
  }
}

/** The metrics, and the sink that updates those of requests. */
export interface Metrics {
  registry: Registry;
  sink: TelemetrySink;
}

/** Register and update every metric. `redisUp` returns whether Redis answers; absent without --redis. */
export function createMetrics(engine: Engine, redisUp?: () => boolean): Metrics {
  const maker = new Maker();
  const { registry } = maker;
  collectDefaultMetrics({ register: registry });
  for (const name of SUMS) registry.removeSingleMetric(name);
  infoMetrics(maker, engine);
  loadMetrics(maker, engine);
  if (redisUp)
    maker.gauge(
      "didi_redis_up",
      "With --redis: 1 while Redis answers, 0 while quotas and cache are local",
      () => Number(redisUp()),
    );
  batchMetrics(maker, engine);
  answerMetrics(maker, engine);
  collapseMetrics(maker, engine);
  return { registry, sink: requestMetrics(registry, SECONDS) };
}

function infoMetrics(maker: Maker, engine: Engine): void {
  maker.info(
    "didi_build_info",
    "Versions of the server, Node and ONNX Runtime",
    ["version", "node", "onnxruntime"],
    () => ({ version: VERSION, node: process.versions.node, onnxruntime: ORT_VERSION }),
  );
  maker.info(
    "didi_model_info",
    "Name of the model, its sha256 as in receipts, precision and execution provider",
    ["model", "sha256", "precision", "provider"],
    () => {
      const { manifest, sha256, precision } = engine.model;
      const { provider } = engine.pool;
      return {
        model: manifest.name,
        sha256: sha256[provider],
        precision: precision[provider],
        provider,
      };
    },
  );
  maker.gauge(
    "didi_ready",
    "1 while requests are served: a worker has loaded the model and the server is not stopping",
    () => Number(whyNotReady(engine) === undefined),
  );
}

function loadMetrics(maker: Maker, engine: Engine): void {
  const gauge = maker.gauge.bind(maker);
  gauge("didi_queue_length", "Requests that wait for a free row", () => engine.queueLength);
  gauge("didi_queue_limit", "Most requests that may wait", () => engine.limits.maxQueue);
  gauge(
    "didi_queue_age_seconds",
    "Waiting time of the oldest request in the queue; 0 if none waits",
    () => engine.queueAgeMs / 1000,
  );
  gauge(
    "didi_backlog_seconds",
    "Estimated time until all waiting and running requests are done",
    () => engine.backlogMs / 1000,
  );
  gauge("didi_active_rows", "Samples being denoised", () => engine.activeRows);
  gauge("didi_active_rows_limit", "Most samples being denoised", () => engine.limits.maxActive);
  gauge("didi_batch_tokens_limit", "Most padded tokens in a batch", () => engine.batchTokens);
  gauge("didi_workers", "Configured workers", () => engine.pool.size);
  gauge("didi_healthy_workers", "Workers that have loaded the model", () => engine.pool.healthy);
  gauge("didi_cache_bytes", "Estimated bytes of the cached answers", () => engine.cacheBytes);
}

function batchMetrics(maker: Maker, engine: Engine): void {
  const passes = maker.counter("didi_passes_total", "Passes of rows through a network", "kind");
  for (const kind of ["student", "discriminator", "gradient"]) passes.inc({ kind }, 0);
  const draws = maker.counter("didi_drawn_tokens_total", "Tokens drawn");
  const restarts = maker.counter("didi_worker_restarts_total", "Workers that died and were replaced");
  const seconds = maker.histogram(
    "didi_batch_seconds",
    "Time of one batch, by graph",
    [0.002, ...SECONDS.slice(0, 10)],
    "graph",
  );
  const rows = maker.histogram("didi_batch_rows", "Rows in a batch", [1, 2, 4, 8, 16, 32, 64]);
  const tokens = maker.histogram(
    "didi_batch_tokens",
    "Padded tokens in a batch",
    [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384],
  );
  const occupancy = maker.histogram(
    "didi_batch_occupancy_ratio",
    "Padded tokens in a batch over its limit; above 1 if a single row is longer than the limit",
    SHARES,
  );
  engine.on("batch", (report) => {
    const { graph } = report;
    if (graph !== "score") passes.inc({ kind: "student" }, report.rows);
    if (graph !== "denoise") passes.inc({ kind: "discriminator" }, report.rows);
    if (graph === "tilt") passes.inc({ kind: "gradient" }, report.rows);
    draws.inc(report.draws);
    rows.observe(report.rows);
    tokens.observe(report.paddedTokens);
    occupancy.observe(report.paddedTokens / report.maxTokens);
    seconds.observe({ graph }, report.milliseconds / 1000);
  });
  engine.pool.on("restart", () => restarts.inc());
  const nonFinite = maker.counter(
    "didi_non_finite_batches_total",
    "Batches with numbers that are not finite, repeated ones included",
  );
  engine.pool.on("non-finite", () => nonFinite.inc());
}

function answerMetrics(maker: Maker, engine: Engine): void {
  const finished = maker.counter("didi_requests_total", "Finished requests by outcome", "outcome");
  for (const outcome of ["done", "cancelled", "failed"]) finished.inc({ outcome }, 0);
  const answers = maker.counter(
    "didi_answers_total",
    "Answers by source: computed (miss), shared with a running request (shared), from the cache (hit)",
    "cache",
  );
  for (const cache of ["miss", "shared", "hit"]) answers.inc({ cache }, 0);
  const lookups = maker.counter(
    "didi_cache_lookups_total",
    "Cache lookups of requests with a seed: in this process (memory), then in Redis (shared)",
    "tier",
    "result",
  );
  for (const result of ["hit", "miss"]) lookups.inc({ tier: "memory", result }, 0);
  const tokens = maker.counter(
    "didi_tokens_total",
    "Tokens of answered requests: prompt and completion",
    "kind",
  );
  for (const kind of ["prompt", "completion"]) tokens.inc({ kind }, 0);
  const samples = maker.counter("didi_samples_total", "Samples of answers by finish reason", "finish_reason");
  for (const finish_reason of ["length", "stop", "deadline"]) samples.inc({ finish_reason }, 0);
  const total = maker.histogram(
    "didi_request_seconds",
    "Time from acceptance to the answer of a request",
    SECONDS,
  );
  const queue = maker.histogram(
    "didi_queue_wait_seconds",
    "Time from acceptance to the first pass, cached answers excluded",
    SECONDS,
  );
  engine.on("lookup", ({ tier, hit }) => lookups.inc({ tier, result: hit ? "hit" : "miss" }));
  engine.on("finished", ({ outcome, result }) => {
    finished.inc({ outcome });
    if (!result) return;
    answers.inc({ cache: result.cache });
    tokens.inc({ kind: "prompt" }, result.usage.prompt_tokens);
    tokens.inc({ kind: "completion" }, result.usage.completion_tokens);
    for (const { finish_reason } of result.samples) samples.inc({ finish_reason });
    total.observe(result.timing.total_ms / 1000);
    if (result.cache !== "hit") queue.observe(result.timing.queue_ms / 1000);
  });
}

/** Signs of a collapsing model: low entropy of its steps, and repetition in its samples. */
function collapseMetrics(maker: Maker, engine: Engine): void {
  const step = maker.histogram(
    "didi_step_entropy_nats",
    "Entropy of the predicted distributions of a step, mean over the drawn positions",
    NATS,
  );
  const sample = maker.histogram(
    "didi_sample_entropy_nats",
    `Entropy of the token frequencies of a computed sample up to its end, from ${LEAST_TOKENS} tokens`,
    NATS,
  );
  const repeated = maker.histogram(
    "didi_sample_repetition_ratio",
    `Share of runs of ${RUN} tokens that occurred earlier in the same sample, from ${LEAST_TOKENS} tokens`,
    [0.01, 0.02, 0.05, ...SHARES],
  );
  engine.on("step", ({ entropy }) => {
    if (entropy !== undefined) step.observe(entropy);
  });
  engine.on("finished", ({ result }) => {
    if (result?.cache !== "miss") return;
    for (const { tokens: all } of result.samples) {
      const end = all.indexOf(engine.model.manifest.end_of_text_token_id);
      const tokens = end < 0 ? all : all.slice(0, end);
      if (tokens.length < LEAST_TOKENS) continue;
      sample.observe(unigramEntropy(tokens));
      repeated.observe(repeatedShare(tokens, RUN));
    }
  });
}
