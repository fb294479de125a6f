/** Measures each optimisation of graphs and batches with and without it, in this process. */

import type { DrawPlan } from "../../src/diffusion/step.ts";
import { type DrawRow, denoiseInput, tiltInput } from "../../src/engine/scheduling/batch.ts";
import { paddedLength } from "../../src/engine/scheduling/scheduler.ts";
import { type Model, openModel } from "../../src/model/model.ts";
import type { Batch, Canvases } from "../../src/runtime/protocol.ts";
import { splitOf } from "../../src/runtime/split.ts";
import { loadDivided } from "../../src/runtime/worker/divided.ts";
import type { LoadedModel } from "../../src/runtime/worker/session.ts";
import { ratios } from "../traffic/statistics.ts";
import { runLoop } from "./loop.ts";
import { interleave, range, tableHead, tableRow } from "./measure.ts";

/** Canvases of `length` tokens whose first half is revealed. */
export class HalfWay {
  constructor(
    readonly model: Model,
    readonly length: number,
  ) {}

  /** Return a row of `candidates` candidates, each of which draws at `positions`. */
  row(kind: "plain" | "tilt" | "rerank", positions: number[], candidates = 1): DrawRow {
    const { mask_token_id, context_length } = this.model.manifest;
    const tokens = new Int32Array(this.length).fill(mask_token_id).fill(5, 0, this.length / 2);
    const plan: DrawPlan = { positions, uniforms: positions.map(() => 0.5) };
    return {
      padded: paddedLength(this.length, context_length),
      sample: {
        canvas: { tokens },
        params: { temperature: 1, topK: 0, topP: 1 },
        schedule: this.model.schedule,
      },
      plan: {
        kind,
        step: 1,
        t: 0.5,
        stay: 0.9,
        scale: 1,
        remasked: [],
        candidates: Array.from({ length: candidates }, () => plan),
      },
    };
  }

  /** Return `count` positions from the middle on. */
  due(count: number): number[] {
    return Array.from({ length: count }, (_, i) => this.length / 2 + i);
  }
}

/** Return the milliseconds of some batches. */
const timed = async (graphs: LoadedModel, batches: Batch[]) => {
  const started = performance.now();
  for (const batch of batches) await graphs.run(batch);
  return performance.now() - started;
};

/** Print the gain of each optimisation and the cost of each kind of guided step. */
export async function graphCosts(folder: string, length: number, repeats: number): Promise<void> {
  const model = await openModel(folder);
  const split = await splitOf("auto", model, 0);
  const graphs = await loadDivided({ graphs: model.graphs, device: "cpu", threads: 0, split });
  const canvas = new HalfWay(model, length);
  const few = canvas.due(length / 16);
  const denoise = (row: DrawRow): Batch => ({ graph: "denoise", input: denoiseInput([row]) });
  const plain = denoise(canvas.row("plain", few));
  const head = denoise(
    canvas.row(
      "plain",
      Array.from({ length }, (_, i) => i),
    ),
  );
  console.log(
    `\nMilliseconds, canvases of ${length} tokens of which a sixteenth is revealed; ` +
      `median of ${repeats} (lowest to highest)\n`,
  );
  tableHead("optimisation or step", "with", "without, or a plain step", "ratio");

  async function compare(
    name: string,
    ours: () => Promise<number>,
    base: () => Promise<number>,
    over: boolean,
  ) {
    await ours();
    await base();
    const [a, b] = (await interleave(repeats, ours, base)) as [number[], number[]];
    tableRow(name, range(a, 1), range(b, 1), range(over ? ratios(a, b) : ratios(b, a), 2));
  }

  const saves = (name: string, ours: () => Promise<number>, base: () => Promise<number>) =>
    compare(name, ours, base, false);
  const costs = (name: string, ours: Batch[]) =>
    compare(
      name,
      () => timed(graphs, ours),
      () => timed(graphs, [plain]),
      true,
    );
  const whole = (rows: number, steps: number, shareFirst: boolean, skipEmpty: boolean) => async () => {
    const keys = Array.from({ length: rows }, (_, sample) => ({ seed: 1, sample }));
    const started = performance.now();
    await runLoop(model, graphs, { keys, length, steps }, { shareFirst, skipEmpty });
    return performance.now() - started;
  };

  await saves(
    "last block and head at revealed positions only: one step",
    () => timed(graphs, [plain]),
    () => timed(graphs, [head]),
  );
  await saves(
    "first pass shared: 8 samples of one prompt, 8 steps",
    whole(8, 8, true, true),
    whole(8, 8, false, true),
  );
  await saves(
    "steps that reveal nothing skipped: 1 sample, 128 steps",
    whole(1, 128, true, true),
    whole(1, 128, true, false),
  );
  if (!model.graphs.cpu.tilt) return;
  const input = tiltInput([canvas.row("tilt", few)]);
  await costs("a tilted step", [{ graph: "tilt", input }]);
  for (const candidates of [2, 4, 8]) {
    const row = canvas.row("rerank", few, candidates);
    const scored: Canvases = {
      rows: candidates,
      padded: row.padded,
      tokens: Int32Array.from(Array.from({ length: candidates }, () => [...row.sample.canvas.tokens]).flat()),
      length: new Int32Array(candidates).fill(length),
      sigma: new Float32Array(candidates),
    };
    await costs(`a re-ranked step of ${candidates} candidates`, [
      denoise(row),
      { graph: "score", input: scored },
    ]);
  }
}
