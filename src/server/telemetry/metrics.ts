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

/** Samples shorter than this say nothing about repetition. */
const LEAST_TOKENS = 16;
/** Runs of so many tokens count as repeated. */
const RUN = 3;

/** Of prom-client's own: gauges that only add up others, and are named like counters. */
const SUMS = ["nodejs_active_handles_total", "nodejs_active_resources_total", "nodejs_active_requests_total"];

const ORT_VERSION: string = createRequire(import.meta.url)("onnxruntime-node/package.json").version;

/** Makes metrics in one registry. */
class Maker {
  readonly registry = new Registry();
  readonly #registers = [this.registry];

  counter<L extends string>(name: string, help: string, ...labelNames: L[]): Counter<L> {
    return new Counter({ name, help, labelNames, registers: this.#registers });
  }

  histogram<L extends string>(name: string, help: string, buckets: number[], ...labelNames: L[]) {
    return new Histogram<L>({ name, help, buckets, labelNames, registers: this.#registers });
  }

  /** A gauge that is read when it is asked for. */
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

  /** A gauge of 1 whose labels are what there is to know. */
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

/** Metrics, and what tells them of requests. */
export interface Metrics {
  registry: Registry;
  sink: TelemetrySink;
}

/** Registers every metric and keeps it up to date. `redisUp` is asked if there is a Redis to be shared. */
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
      "With --redis: 1 while Redis answers, 0 while this server goes on alone",
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
    "The server: its version and those of what it runs on",
    ["version", "node", "onnxruntime"],
    () => ({ version: VERSION, node: process.versions.node, onnxruntime: ORT_VERSION }),
  );
  maker.info(
    "didi_model_info",
    "The model: its name, its sha256 as in receipts, what its matrices are held in and where it runs",
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
    "1 while requests are served: the model has run, a worker holds it and the server is not stopping",
    () => Number(whyNotReady(engine) === undefined),
  );
}

function loadMetrics(maker: Maker, engine: Engine): void {
  const gauge = maker.gauge.bind(maker);
  gauge("didi_queue_length", "Requests that wait for a free row", () => engine.queueLength);
  gauge("didi_queue_limit", "Requests that may wait", () => engine.limits.maxQueue);
  gauge(
    "didi_queue_age_seconds",
    "How long the oldest request in the queue has waited; 0 if none waits",
    () => engine.queueAgeMs / 1000,
  );
  gauge(
    "didi_backlog_seconds",
    "Time until what waits and runs is worked off, at the measured speed",
    () => engine.backlogMs / 1000,
  );
  gauge("didi_active_rows", "Samples being denoised", () => engine.activeRows);
  gauge("didi_active_rows_limit", "Samples that are denoised side by side", () => engine.limits.maxActive);
  gauge(
    "didi_batch_tokens_limit",
    "Padded tokens that one call of the model holds at most",
    () => engine.batchTokens,
  );
  gauge("didi_workers", "Workers that there are to be", () => engine.pool.size);
  gauge("didi_healthy_workers", "Workers that hold the model", () => engine.pool.healthy);
  gauge("didi_cache_bytes", "Estimated bytes of the answers that are kept", () => engine.cacheBytes);
}

function batchMetrics(maker: Maker, engine: Engine): void {
  const passes = maker.counter("didi_passes_total", "Canvases that went through a network", "kind");
  for (const kind of ["student", "discriminator", "gradient"]) passes.inc({ kind }, 0);
  const draws = maker.counter("didi_drawn_tokens_total", "Tokens drawn");
  const restarts = maker.counter("didi_worker_restarts_total", "Workers that died and were replaced");
  const seconds = maker.histogram(
    "didi_batch_seconds",
    "Time that a graph ran for one step of a batch of rows",
    [0.002, ...SECONDS.slice(0, 10)],
    "graph",
  );
  const rows = maker.histogram("didi_batch_rows", "Rows in one call of the model", [1, 2, 4, 8, 16, 32, 64]);
  const tokens = maker.histogram(
    "didi_batch_tokens",
    "Padded tokens in one call of the model",
    [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384],
  );
  const occupancy = maker.histogram(
    "didi_batch_occupancy_ratio",
    "Padded tokens in one call of the model, of those it may hold; above 1 for a row that is longer alone",
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
    "Batches with numbers that are not finite, those that were run once more included",
  );
  engine.pool.on("non-finite", () => nonFinite.inc());
}

function answerMetrics(maker: Maker, engine: Engine): void {
  const finished = maker.counter("didi_requests_total", "Generations that ended", "outcome");
  for (const outcome of ["done", "cancelled", "failed"]) finished.inc({ outcome }, 0);
  const answers = maker.counter(
    "didi_answers_total",
    "Answers by where they came from: computed (miss), with another request (shared), from the cache (hit)",
    "cache",
  );
  for (const cache of ["miss", "shared", "hit"]) answers.inc({ cache }, 0);
  const lookups = maker.counter(
    "didi_cache_lookups_total",
    "Requests with a seed that were looked for among the answers kept in this process (memory) or, where they are not, in Redis (shared)",
    "tier",
    "result",
  );
  for (const result of ["hit", "miss"]) lookups.inc({ tier: "memory", result }, 0);
  const tokens = maker.counter(
    "didi_tokens_total",
    "Tokens of answers: given (prompt) and generated",
    "kind",
  );
  for (const kind of ["prompt", "completion"]) tokens.inc({ kind }, 0);
  const samples = maker.counter(
    "didi_samples_total",
    "Samples of answers by how they ended",
    "finish_reason",
  );
  for (const finish_reason of ["length", "stop", "deadline"]) samples.inc({ finish_reason }, 0);
  const total = maker.histogram(
    "didi_request_seconds",
    "Time from acceptance to the end of a generation",
    SECONDS,
  );
  const queue = maker.histogram(
    "didi_queue_wait_seconds",
    "Time from acceptance to the first pass, of what was computed",
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

/** A model that collapses is sure of itself (step entropy), and says the same again (the other two). */
function collapseMetrics(maker: Maker, engine: Engine): void {
  const step = maker.histogram(
    "didi_step_entropy_nats",
    "Entropy of the predicted distributions of a step, mean over the positions drawn",
    NATS,
  );
  const sample = maker.histogram(
    "didi_sample_entropy_nats",
    `Entropy of how often each token occurs in a computed sample of ${LEAST_TOKENS} tokens or more, up to its end of text`,
    NATS,
  );
  const repeated = maker.histogram(
    "didi_sample_repetition_ratio",
    `Share of runs of ${RUN} tokens that stood in the same sample before, of the same samples`,
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
