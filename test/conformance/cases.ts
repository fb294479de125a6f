/** The cases: requests drawn from a seed, nine at a time, so that each has eight others beside it. */

import { Random } from "../../loadtest/traffic/random.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { type Continuation, MODES, type Mode, type ModeName } from "./modes.ts";

/** A request, and the mode that it is an example of. */
export interface Case {
  mode: ModeName;
  request: GenerateRequest;
}

/** What the requests of a round share the machine with. */
export const COMPANIES = [
  "alone, 2 workers",
  "8 others, 1 worker",
  "8 others, 2 workers",
  "8 others, 2 workers, 1 killed",
] as const;
export type Company = (typeof COMPANIES)[number];

/** Requests that run side by side, and how. */
export interface Round {
  company: Company;
  cases: Case[];
  /** Calls of the model after which a worker is killed, where one is. */
  killAfter: number;
  /** Which worker, in [0, 1). */
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
 * Round number `index` of a seed, for a model with or without a discriminator. Every mode leads in its turn.
 * Half of the neighbours have the leader's mode and half of them its canvas, apart from each other: what is
 * shared between rows is where rows can harm each other.
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
