/** Throughput of one and of two replicas. */

import { interleave } from "../bench/measure.ts";
import { served } from "../bench/requests.ts";
import { type BatchCost, fitBatch, throughput } from "../traffic/fit.ts";
import { median } from "../traffic/statistics.ts";
import { readyPods, scale } from "./kubernetes.ts";

export const SHAPE = { length: 64, steps: 16 };
/** Clients of one replica for the fit; the last is also that of the comparison. */
const FEW = [1, 2, 4, 8] as const;
const CLIENTS = 8;
const REPEATS = 3;
/** Approximate seconds of one measurement. */
const SECONDS = 3;

/** A measurement. */
export interface Row {
  replicas: number;
  clients: number;
  /** Tokens a second of the repeats. */
  measured: number[];
  /** Tokens a second by the formula. */
  formula: number;
}

export interface Throughput {
  rows: Row[];
  cost: BatchCost;
}

/** Measure with 1 and 2 replicas. The clients ask the pods in turn, without a proxy. */
export async function measureThroughput(): Promise<Throughput> {
  const measured: Omit<Row, "formula">[] = [];
  for (const [replicas, sides] of [
    [1, [...FEW]],
    [2, [CLIENTS, 2 * CLIENTS]],
  ] as const) {
    await scale(replicas);
    const origins = (await readyPods()).map(({ origin }) => origin);
    const ask = (clients: number, rounds: number) =>
      served(origins, clients, rounds, SHAPE.length, SHAPE.steps);
    const speed = await ask(CLIENTS, 2);
    const rounds = (clients: number) =>
      Math.max(1, Math.round((SECONDS * speed) / (clients * SHAPE.length) / (clients < 3 ? 2 : 1)));
    const results = await interleave(REPEATS, ...sides.map((clients) => () => ask(clients, rounds(clients))));
    measured.push(...sides.map((clients, i) => ({ replicas, clients, measured: results[i]! })));
  }
  const alone = measured.filter(({ replicas }) => replicas === 1);
  const cost = fitBatch(
    SHAPE,
    alone.map(({ clients }) => clients),
    alone.map(({ measured }) => median(measured)),
  );
  return {
    cost,
    rows: measured.map((row) => ({ ...row, formula: throughput(cost, SHAPE, row.replicas, row.clients) })),
  };
}
