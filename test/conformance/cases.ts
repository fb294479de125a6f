/** Cases: random requests of a seed, nine at a time, so that each runs beside eight others. */

import { Random } from "../../loadtest/traffic/random.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { type Continuation, MODES, type Mode, type ModeName } from "./modes.ts";

/** A request and its mode. */
export interface Case {
  mode: ModeName;
  request: GenerateRequest;
}

/** What else happens during a round. */
export const COMPANIES = [
  "alone, 2 workers",
  "8 others, 1 worker",
  "8 others, 2 workers",
  "8 others, 2 workers, 1 killed",
] as const;
export type Company = (typeof COMPANIES)[number];

/** Requests that run concurrently, and how. */
export interface Round {
  company: Company;
  cases: Case[];
  /** Batches after which a worker is killed. */
  killAfter: number;
  /** Selects the worker, in [0, 1). */
  victim: number;
}

/** Cases of a round. */
export const ROUND = 9;

const PROMPTS = ["", "a", "Once upon", "Tom had a red ball"];
const LENGTHS = [3, 9, 20, 37];

/** Step budgets. The last is more than there are tokens to reveal. */
const BUDGETS: ((random: Random, length: number) => number)[] = [
  () => 1,
  () => 2,
  () => 7,
  () => 16,
  (random, length) => length + random.integer(1, 20),
];

function drawCase(random: Random, mode: ModeName, canvas: Continuation): Case {
  const steps = random.pick(BUDGETS)(random, canvas.length);
  const request = { ...canvas, steps, seed: random.integer(0, 1e9), temperature: random.pick([1, 1, 0.7]) };
  return { mode, request: { ...request, ...(MODES[mode] as Mode).fields(random, canvas) } };
}

/**
 * Return round number `index` of a seed, for a model with or without a discriminator. The modes lead in turn.
 * Half of the other requests have the mode of the leader, and half, chosen independently, have its canvas,
 * since rows can only affect each other through what they share.
 */
export function drawRound(seed: number, index: number, guided: boolean): Round {
  const random = new Random(seed, index);
  const names = (Object.keys(MODES) as ModeName[]).filter((name) => guided || !(MODES[name] as Mode).guided);
  const leader = names[index % names.length]!;
  const drawCanvas = () => ({ prompt: random.pick(PROMPTS), length: random.pick(LENGTHS) });
  const canvas = drawCanvas();
  const cases = Array.from({ length: ROUND }, (_, i) =>
    drawCase(
      random,
      i === 0 || random.chance(0.5) ? leader : random.pick(names),
      i === 0 || random.chance(0.5) ? canvas : drawCanvas(),
    ),
  );
  return { company: random.pick(COMPANIES), cases, killAfter: random.integer(1, 3), victim: random.next() };
}
