/** Summarises the repeats of a cell: medians, ranges, and the times over all repeats. */

import type { Recorder } from "../traffic/recorder.ts";
import { median } from "../traffic/statistics.ts";
import type { Measurement, Spread, Summary } from "./types.ts";

/** Return median, lowest and highest. Throw RangeError if there are no values. */
export function spread(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError("no values");
  return { median: median(values), lowest: Math.min(...values), highest: Math.max(...values) };
}

/** The figures of one measurement that have a median and a range, by name. */
export const FIGURES: Record<string, (measurement: Measurement) => number | undefined> = {
  tokens_per_second: (m) => m.tokens_per_second,
  requests_per_second: (m) => m.requests_per_second,
  latency_p50_ms: (m) => m.times_ms.latency?.p50,
  latency_p90_ms: (m) => m.times_ms.latency?.p90,
  latency_p99_ms: (m) => m.times_ms.latency?.p99,
  first_step_p50_ms: (m) => m.times_ms.first_step?.p50,
  step_gap_p50_ms: (m) => m.times_ms.step_gap?.p50,
  queue_p50_ms: (m) => m.times_ms.queue?.p50,
  student_passes_per_second: (m) => m.passes_per_second?.student,
  discriminator_passes_per_second: (m) => m.passes_per_second?.discriminator,
  gradient_passes_per_second: (m) => m.passes_per_second?.gradient,
  batch_rows: (m) => m.batch?.rows,
  batch_busy: (m) => m.batch?.busy,
  client_cpu_cores: (m) => m.client_cpu_cores,
  server_cpu_cores: (m) => m.server?.cpu_cores,
  server_rss_bytes: (m) => m.server?.rss_bytes,
  other_cpu_cores: (m) => m.other_cpu_cores,
  machine_speed: (m) => m.machine_speed,
};

/** Return the summary of a cell; `all` holds the requests of every repeat. */
export function summarise(measurements: readonly Measurement[], all: Recorder): Summary {
  const figures = Object.entries(FIGURES).flatMap(([name, read]) => {
    const values = measurements.map(read).filter((value) => value !== undefined);
    return values.length > 0 ? [[name, spread(values)] as const] : [];
  });
  return {
    repeats: measurements.length,
    errors: { ...all.errors },
    figures: Object.fromEntries(figures),
    times_ms: all.times.times(),
    ...(all.shapes.size > 1 && {
      shapes: Object.fromEntries([...all.shapes].map(([name, times]) => [name, times.times()])),
    }),
  };
}
