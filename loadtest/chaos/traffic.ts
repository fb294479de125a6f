/** Clients that ask without a pause, and hold every answer to the one in peace. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../traffic/random.ts";
import { holdSteps, REQUESTS, sameSamples, type Told } from "./requests.ts";
import { byEvents, byPost, bySocket, type Outcome } from "./ways.ts";

export const WAYS = ["post", "sse", "websocket"] as const;
export type Way = (typeof WAYS)[number];

/** What came of all requests. */
export interface Tally {
  /** Right answers. */
  answered: Record<Way, number>;
  /** Requests that were refused with 429 or 503. */
  refused: number;
  /** Streams that were broken on purpose and resumed. */
  resumes: number;
  /** Steps that came together with those after them, because the reader fell behind. */
  merged: number;
  /** Accepted, and not answered, or not once. */
  lost: string[];
  /** Answers unlike those in peace. */
  different: string[];
  /** Streams that skipped, repeated or changed a step. */
  steps: string[];
}

export const emptyTally = (): Tally => ({
  answered: { post: 0, sse: 0, websocket: 0 },
  refused: 0,
  resumes: 0,
  merged: 0,
  lost: [],
  different: [],
  steps: [],
});

/** Every request once, one after the other. Rejects if one is not answered. */
export async function inPeace(origin: string): Promise<Told[]> {
  const told: Told[] = [];
  for (const body of REQUESTS) {
    const [outcome] = await bySocket(origin, [body]);
    if (outcome?.kind !== "told") throw new Error(`in peace: ${JSON.stringify(outcome)}`);
    told.push({ samples: outcome.samples, steps: outcome.steps! });
  }
  return told;
}

/** Generations of one socket at once. */
const PER_SOCKET = 3;

/** Send what one client sends at a time, and add what came of it to `tally`. */
export async function ask(
  origin: string,
  way: Way,
  random: Random,
  expected: readonly Told[],
  tally: Tally,
): Promise<void> {
  const indices = Array.from({ length: way === "websocket" ? PER_SOCKET : 1 }, () =>
    random.integer(0, REQUESTS.length - 1),
  );
  const bodies = indices.map((index) => REQUESTS[index]!);
  let outcomes: Outcome[];
  try {
    if (way === "websocket") outcomes = await bySocket(origin, bodies);
    else if (way === "post") outcomes = [await byPost(origin, bodies[0]!)];
    else outcomes = [await byEvents(origin, bodies[0]!, random)];
  } catch (error) {
    outcomes = [{ kind: "lost", why: (error as Error).message }];
  }
  for (const [i, outcome] of outcomes.entries()) judge(outcome, way, indices[i]!, expected, tally);
  // A client that was refused waits before its next request.
  if (outcomes.some(({ kind }) => kind !== "told")) await sleep(200);
}

function judge(outcome: Outcome, way: Way, index: number, expected: readonly Told[], tally: Tally): void {
  const name = `${way}, request ${index}`;
  if (outcome.kind === "refused") tally.refused++;
  else if (outcome.kind === "lost") tally.lost.push(`${name}: ${outcome.why}`);
  else {
    const { samples, steps } = expected[index]!;
    const held = outcome.steps && holdSteps(outcome.steps, steps);
    tally.merged += held?.merged ?? 0;
    tally.resumes += outcome.resumes;
    tally.answered[way]++;
    if (held?.fault) tally.steps.push(`${name}: ${held.fault}`);
    if (!sameSamples(outcome.samples, samples)) tally.different.push(name);
  }
}
