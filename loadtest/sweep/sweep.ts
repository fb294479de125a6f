/** `loadtest sweep`: plans and measures, and writes the results even if the run is interrupted or fails. */

import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { StartupError } from "../../src/errors.ts";
import type { SweepConfig } from "../cli/flags.ts";
import { Progress, percentAndClock } from "../cli/progress.ts";
import { interruption } from "../cli/script.ts";
import { writeResults } from "../report/results.ts";
import { SERVER } from "../report/select.ts";
import type { Results, Spread } from "../report/types.ts";
import { warningsOf } from "../report/warnings.ts";
import { environment } from "../servers/machine.ts";
import { peerCellsFor, startPeers } from "../servers/peers/peers.ts";
import type { Side } from "../servers/side.ts";
import { attachTarget, startTarget, type Target } from "../servers/start.ts";
import { checkTarget } from "./loopback.ts";
import { type Allowed, CLIMBS, defaultPlan, mixCells, type Plan, product, shapeOf } from "./plan.ts";
import { qualityOf } from "./quality.ts";
import { Run } from "./run.ts";

/** Seconds reserved for drawing the pictures and stopping the servers. */
const RESERVE = 4;

/** Return the plan for the flags. Throws StartupError if the model does not support it. */
export function planFor(config: SweepConfig, { guided, context }: Allowed): Plan {
  const { steps, concurrency, length, guidance, transport, mix, prompt, quick, open, rates } = config;
  const chosen = [steps, concurrency, length, guidance, transport, mix, rates].some(
    (flag) => flag !== undefined,
  );
  if (guidance?.includes("rgas") && !guided)
    throw new StartupError("--guidance rgas: the model has no discriminator", 2);
  const longest = Math.max(...(length ?? [0]));
  if (longest > context)
    throw new StartupError(
      `--length ${longest}: prompt and length must fit the model's context of ${context} tokens`,
      2,
    );
  if (!chosen && !prompt) return defaultPlan({ guided, context }, quick, open);
  const clients = concurrency ?? [8];
  const transports = transport ?? ["post"];
  const grid = {
    ...{ steps: steps ?? [4, 8, 16, 32], clients, lengths: length ?? [Math.min(128, context)] },
    ...{ guidance: guidance ?? ["none" as const], transports, prompt },
  };
  // With --mix, the grid is measured only if an axis is given as well.
  const mixed = mix === undefined ? [] : transports.flatMap((way) => mixCells(mix, clients, way));
  const axes = [steps, length, guidance].some((flag) => flag !== undefined) || mix === undefined;
  const ladders = grid.steps.map((budget) => ({
    shape: shapeOf(budget, grid.lengths[0]!, grid.guidance[0], prompt),
    transport: transports[0]!,
    ...(rates && { rates }),
  }));
  const cells = [...(axes ? product(grid) : []), ...mixed];
  return { cells, ladders: open && axes ? ladders : [], climbs: CLIMBS };
}

/** Run a sweep. Return the exit code: 0, 130 if interrupted, 1 if the server failed. */
export async function sweep(config: SweepConfig, flags: readonly string[]): Promise<0 | 1 | 130> {
  const started = performance.now();
  const begun = new Date();
  const origin = config.url === undefined ? undefined : checkTarget(config.url, config.iKnow);
  if (origin === undefined && config.iKnow)
    throw new StartupError("--i-know has no effect without --url: give both, or neither", 2);
  const name = config.name ?? "";
  if (name && existsSync(join(config.out, name, "results.json")) && !config.overwrite)
    throw new StartupError(
      `${join(config.out, name)} already holds results: choose another --name, or give --overwrite`,
      2,
    );

  const progress = new Progress();
  const stop = interruption();
  const deadline = started + (config.time - RESERVE) * 1000;
  const say = (done: number, seconds: number, what: string) =>
    progress.show(() => `${percentAndClock(done, seconds)}  ${what}`);
  say(0, config.time, origin === undefined ? "starting the server" : `connecting to ${origin}`);
  const sides = new Map<string, Side>();
  let failure: Error | undefined;
  try {
    const target: Target =
      origin === undefined ? await startTarget(config.model, config.serverFlags) : await attachTarget(origin);
    const { side: server, info } = target;
    sides.set(SERVER, server);
    const plan = planFor(config, { guided: info.guidance !== undefined, context: info.context_length });
    const peers = await startPeers(config, (what) => say(0, config.time, what));
    for (const peer of peers) sides.set(peer.info.name, peer);
    const left = () => (deadline - performance.now()) / 1000;
    const run = new Run(sides, plan, peerCellsFor(peers, plan), {
      ...{ repeats: config.repeats, deadline, started, maxRequests: config.maxRequests, seed: config.seed },
      ...{ timeoutMs: config.timeout * 1000, p99LimitMs: config.p99, signal: stop },
      onProgress: (what) => say(1 - left() / config.time, left() + RESERVE, what),
    });
    await run.go().catch((error: Error) => {
      failure = error;
    });
    const cells = run.cells();
    const env = environment();
    const results: Results = {
      format_version: 1,
      name: name || `${info.name}-${begun.toISOString().slice(0, 19).replaceAll(":", "")}`,
      started: begun.toISOString(),
      seconds: (performance.now() - started) / 1000,
      complete: run.leftOut === 0 && failure === undefined && !stop.aborted,
      left_out: run.leftOut,
      settings: {
        ...{ flags: [...flags], seed: config.seed, repeats: config.repeats },
        ...{ time_s: config.time, p99_limit_ms: config.p99 },
      },
      environment: env,
      model: { name: info.name, parameters: info.parameters, context_length: info.context_length },
      sides: [...sides.values()].map(({ info: said }) => said),
      cells,
      knees: run.knees(),
      quality: qualityOf(info),
      warnings: [
        ...(failure ? [`The run ended early: ${failure.message}.`] : []),
        ...run.warnings,
        ...warningsOf(cells, env.cores),
      ],
    };
    const folder = join(config.out, results.name);
    await writeResults(folder, results);
    progress.close();
    summary(results, relative(process.cwd(), folder) || folder);
    return stop.aborted ? 130 : failure ? 1 : 0;
  } finally {
    progress.close();
    await Promise.all([...sides.values()].map((side) => side.close()));
  }
}

/** Return the rate of a knee for the summary. */
export function kneeText({ median }: Spread, reached: boolean): string {
  return median === 0 ? "none of the tried rates held" : `${reached ? "" : "at least "}${median} requests/s`;
}

/** Print a summary of the results. */
function summary(results: Results, folder: string): void {
  const measured = results.cells.reduce((sum, { measurements }) => sum + measurements.length, 0);
  console.log(`${results.cells.length} cells, ${measured} measurements, ${Math.round(results.seconds)} s`);
  if (!results.complete) console.log(`not complete: ${results.left_out} planned measurements are missing`);
  const limit = results.settings.p99_limit_ms;
  for (const { shape, requests_per_second, reached } of results.knees)
    console.log(`${shape.name}: ${kneeText(requests_per_second, reached)} at p99 under ${limit} ms`);
  for (const warning of results.warnings) console.log(`warning: ${warning}`);
  console.log(`${folder}/report.md`);
}
