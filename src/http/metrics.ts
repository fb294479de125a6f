/** Prometheus metrics of the engine and of the process. */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { Engine } from "../engine/engine.ts";

/** Registers every metric and keeps it up to date from the engine's events. */
export function createMetrics(engine: Engine): Registry {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const counter = (name: string, help: string) => new Counter({ name, help, registers });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });

  gauge("didi_queue_length", "Requests that wait for a free row", () => engine.queueLength);
  gauge("didi_active_rows", "Samples being denoised", () => engine.activeRows);
  gauge("didi_cache_bytes", "Estimated bytes of the answers that are kept", () => engine.cacheBytes);
  gauge("didi_ready", "1 once the model has run", () => Number(engine.ready));
  const passes = {
    student: counter("didi_student_passes_total", "Canvases that went through the student"),
    discriminator: counter("didi_discriminator_passes_total", "Canvases that the discriminator scored"),
    gradient: counter("didi_gradient_passes_total", "Canvases that went backwards through the discriminator"),
  };
  const calls = counter("didi_batches_total", "Calls of the model");
  const draws = counter("didi_drawn_tokens_total", "Tokens drawn");
  const restarts = counter("didi_runtime_restarts_total", "Runtime processes that died and were replaced");
  const finished = new Counter({
    name: "didi_generations_total",
    help: "Generations that ended",
    labelNames: ["outcome"],
    registers,
  });
  const answers = new Counter({
    name: "didi_answers_total",
    help: "Answers by where they came from: computed (miss), with another request (shared), from the cache (hit)",
    labelNames: ["cache"],
    registers,
  });
  const seconds = new Histogram({
    name: "didi_batch_seconds",
    help: "Time of one call of the model",
    buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
    registers,
  });
  const rows = new Histogram({
    name: "didi_batch_rows",
    help: "Rows in one call of the model",
    buckets: [1, 2, 4, 8, 16, 32, 64],
    registers,
  });
  const total = new Histogram({
    name: "didi_generation_seconds",
    help: "Time from acceptance to the end of a generation",
    buckets: [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120],
    registers,
  });

  engine.on("batch", (report) => {
    calls.inc();
    if (report.graph !== "score") passes.student.inc(report.rows);
    if (report.graph !== "denoise") passes.discriminator.inc(report.rows);
    if (report.graph === "tilt") passes.gradient.inc(report.rows);
    draws.inc(report.draws);
    rows.observe(report.rows);
    seconds.observe(report.milliseconds / 1000);
  });
  engine.on("finished", ({ outcome, result }) => {
    finished.inc({ outcome });
    if (!result) return;
    answers.inc({ cache: result.cache });
    total.observe(result.timing.total_ms / 1000);
  });
  engine.runtime.on("restart", () => restarts.inc());
  return registry;
}
