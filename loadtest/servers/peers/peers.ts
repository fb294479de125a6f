/** Starts the peers, and plans the cells in which they are measured. */

import type { SweepConfig } from "../../cli/flags.ts";
import { clientsOf } from "../../report/select.ts";
import type { PlannedCell, Shape, SideInfo } from "../../report/types.ts";
import { cellId, type Plan } from "../../sweep/plan.ts";
import { shapeName } from "../../traffic/traffic.ts";
import type { PeerSide } from "../side.ts";
import { startLlama } from "./llama.ts";
import { startBare, startReference } from "./loops.ts";
import { type PeerName, TITLES } from "./names.ts";
import { startTransformers } from "./transformers.ts";

const STARTS: Record<PeerName, (config: SweepConfig, info: SideInfo) => Promise<PeerSide>> = {
  bare: startBare,
  reference: startReference,
  transformers: startTransformers,
  "llama.cpp": (config, info) => startLlama(config, info, "f16"),
  "llama.cpp-q8": (config, info) => startLlama(config, info, "q8_0"),
};

/** Start the peers. For a peer that cannot be started, `info.left_out` holds the reason. */
export async function startPeers(
  config: SweepConfig,
  onProgress: (what: string) => void,
): Promise<PeerSide[]> {
  const sides: PeerSide[] = [];
  for (const name of config.peers ?? []) {
    onProgress(`starting the peer ${name}`);
    const info: SideInfo = { name, title: TITLES[name], settings: {} };
    try {
      sides.push(await STARTS[name](config, info));
    } catch (error) {
      const left_out = (error as Error).message;
      const run = () => Promise.reject(error);
      sides.push({ info: { ...info, left_out }, budgets: false, run, close: async () => {} });
    }
  }
  return sides;
}

/**
 * Return a cell of each peer for each plain POST cell of the server, with the same number of rows or clients;
 * one cell for all budgets of a peer without budgets. If the server has cells at several budgets, only those
 * are compared.
 */
export function peerCellsFor(peers: readonly PeerSide[], { cells }: Plan): PlannedCell[] {
  const fit = cells.filter(
    ({ transport, load, shapes: [shape, other] }) =>
      transport === "post" &&
      load.kind === "closed" &&
      !other &&
      shape!.guidance !== "rgas" &&
      !shape!.prompt,
  );
  const budgetsAt = (cell: PlannedCell) => fit.filter((other) => clientsOf(other) === clientsOf(cell)).length;
  const several = fit.filter((cell) => budgetsAt(cell) > 1);
  const made = new Map<string, PlannedCell>();
  for (const { info, budgets, watch } of peers.filter(({ info }) => info.left_out === undefined))
    for (const { load, shapes } of several.length > 0 ? several : fit) {
      const { steps, length } = shapes[0]!;
      const own = { length, ...(budgets && { steps: steps! }) };
      const shape: Shape = { name: shapeName(own), weight: 1, ...own };
      const cell = {
        side: info.name,
        transport: watch ? ("post" as const) : ("none" as const),
        load,
        shapes: [shape],
      };
      made.set(cellId(cell), { id: cellId(cell), ...cell });
    }
  return [...made.values()];
}
