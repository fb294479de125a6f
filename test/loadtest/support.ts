/** Builds results for tests. */

import { summarise } from "../../loadtest/report/summary.ts";
import type { Cell, Measurement, PlannedCell, Results } from "../../loadtest/report/types.ts";
import { servedCell, shapeOf } from "../../loadtest/sweep/plan.ts";
import { Recorder } from "../../loadtest/traffic/recorder.ts";

/** Return a cell with a measurement for each of `rates`, in tokens a second. */
export function measured(
  cell: PlannedCell,
  rates: readonly number[],
  errors: Record<string, number> = {},
): Cell {
  const all = new Recorder();
  Object.assign(all.errors, errors);
  const measurements = rates.map((rate, repeat): Measurement => {
    const recorder = new Recorder();
    recorder.success(cell.shapes[0]!, 100_000 / rate, { tokens: 8 });
    all.add(recorder);
    return {
      ...{ repeat, started_s: repeat, seconds: 1, requests: 1, tokens: 8, requests_per_second: rate / 8 },
      ...{ tokens_per_second: rate, times_ms: recorder.times.times(), errors, machine_speed: 1000 },
      ...(cell.load.kind === "open" && { kept_up: true }),
    };
  });
  return { ...cell, measurements, summary: summarise(measurements, all) };
}

/** Return a closed-loop cell. */
export const closed = (steps: number, clients = 8, guidance: "none" | "rgas" = "none") =>
  servedCell("post", { kind: "closed", clients }, [shapeOf(steps, 128, guidance)]);

/** Return results with these cells. */
export function resultsOf(cells: Cell[], changes: Partial<Results> = {}): Results {
  return {
    ...{ format_version: 1, name: "made", started: "2026-01-02T03:04:05.678Z", seconds: 10 },
    ...{ complete: true, left_out: 0 },
    settings: { flags: [], seed: 1, repeats: 3, time_s: 10, p99_limit_ms: 1000 },
    environment: { cpu: "any", cores: 2, memory_bytes: 1, platform: "any", versions: { node: "20" } },
    model: { name: "made", parameters: 1, context_length: 256 },
    sides: [{ name: "server", title: "didi-serve", settings: {} }],
    ...{ cells, knees: [], quality: [], warnings: [] },
    ...changes,
  };
}
