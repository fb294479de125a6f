/** The plan of a run: the grid of cells, and the ladders of rates. */

import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import type { Load, PlannedCell, Shape } from "../report/types.ts";
import { readMix, shapeName } from "../traffic/traffic.ts";

/** Transports of a server. */
export type ServedTransport = "post" | "sse" | "ws";

/** Axes of the grid; every combination is a cell. */
export interface Grid {
  steps: readonly number[];
  clients: readonly number[];
  lengths: readonly number[];
  guidance: readonly ("none" | "rgas")[];
  transports: readonly ServedTransport[];
  prompt: string;
}

/** A shape whose knee is to be found. */
export interface LadderPlan {
  shape: Shape;
  transport: ServedTransport;
  /** Rates to try; absent: derived from the throughput of the closed loop. */
  rates?: readonly number[];
  /** Ratio of a rate to the one below it. */
  rise?: number;
}

/** The cells and ladders of a run. */
export interface Plan {
  cells: PlannedCell[];
  ladders: LadderPlan[];
  /** Repeats with an open loop. */
  climbs: number;
}

/** Repeats with an open loop, which takes longer than the rest of a repeat. */
export const CLIMBS = 3;

/** Traffic of short and long budgets together. */
const MIX = fileURLToPath(new URL("../traffic/mixes/short-and-long.json", import.meta.url));

/** Return the id of a cell, which is the same in every run. */
export function cellId({ side, transport, load, shapes }: Omit<PlannedCell, "id">): string {
  const clients =
    load.kind === "closed" ? `${load.clients} clients` : `${Number(load.rate.toPrecision(3))}/s`;
  return [side, transport, clients, shapes.map(({ name }) => name).join(" + ")].join(" | ");
}

/** Return a cell of the server. */
export function servedCell(transport: ServedTransport, load: Load, shapes: Shape[]): PlannedCell {
  const cell = { side: "server", transport, load, shapes };
  return { id: cellId(cell), ...cell };
}

/** Return a shape with its name. */
export function shapeOf(
  steps: number,
  length: number,
  guidance: "none" | "rgas" = "none",
  prompt = "",
): Shape {
  const shape = { steps, length, guidance, ...(prompt && { prompt }) };
  return { name: shapeName(shape), weight: 1, ...shape };
}

/** Return a cell for every combination. */
export function product({ steps, clients, lengths, guidance, transports, prompt }: Grid): PlannedCell[] {
  return lengths.flatMap((length) =>
    guidance.flatMap((mode) =>
      steps.flatMap((budget) =>
        clients.flatMap((count) =>
          transports.map((transport) =>
            servedCell(transport, { kind: "closed", clients: count }, [
              shapeOf(budget, length, mode, prompt),
            ]),
          ),
        ),
      ),
    ),
  );
}

/** Return a cell of mixed traffic for each number of clients. */
export function mixCells(
  path: string,
  clients: readonly number[],
  transport: ServedTransport,
): PlannedCell[] {
  const shapes = readMix(path);
  return clients.map((count) => {
    const cell = servedCell(transport, { kind: "closed", clients: count }, shapes);
    return { ...cell, id: `server | ${transport} | ${count} clients | mix ${basename(path, ".json")}` };
  });
}

/** Limits of the served model. */
export interface Allowed {
  guided: boolean;
  context: number;
}

/**
 * Return the default plan: each axis varied around one point, and all budgets with few and with many clients.
 */
export function defaultPlan({ guided, context }: Allowed, quick: boolean, open: boolean): Plan {
  const length = Math.min(quick ? 64 : 128, context);
  const [budgets, few, many] = quick ? [[4, 16], 1, 4] : [[4, 8, 16, 32], 1, 8];
  const middle = quick ? 4 : 16;
  const through: Grid = {
    ...{ steps: [middle], clients: [many], lengths: [length], guidance: ["none"], transports: ["post"] },
    prompt: "",
  };
  const cells = [
    ...product({ ...through, steps: budgets, clients: [few, many] }),
    ...product({ ...through, clients: quick ? [] : [2, 4, 16] }),
    ...product({ ...through, transports: ["sse", "ws"] }),
    ...product({ ...through, steps: quick ? [4] : [4, 8, 16], guidance: guided ? ["rgas"] : [] }),
    ...product({ ...through, lengths: quick || length <= 32 ? [] : [32] }),
    ...(context < 128 ? [] : mixCells(MIX, [many], "post")),
  ];
  const ladders = open
    ? budgets.map((budget) => ({
        ...{ shape: shapeOf(budget, length), transport: "post" as const },
        ...(quick && { rise: 1.4 }),
      }))
    : [];
  return { cells, ladders, climbs: quick ? 1 : CLIMBS };
}
