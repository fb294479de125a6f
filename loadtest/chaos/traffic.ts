/** Clients that send requests without a pause and compare every answer with the one without faults. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../traffic/random.ts";
import { type Answer, compareSteps, REQUESTS, sameSamples } from "./requests.ts";
import { byEvents, byPost, bySocket, type Outcome } from "./ways.ts";

export const WAYS = ["post", "sse", "websocket"] as const;
export type Way = (typeof WAYS)[number];

/** The outcomes of all requests. */
export interface Tally {
  /** Answers by transport. */
  answered: Record<Way, number>;
  /** Requests that were refused with 429 or 503. */
  refused: number;
  /** Streams that a client broke off and resumed. */
  resumes: number;
  /** Steps that were merged into a later one for a slow reader. */
  merged: number;
  /** Accepted requests that were not answered exactly once. */
  lost: string[];
  /** Answers that differ from those without faults. */
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

/** Send every request once, one after the other. Rejects if one is not answered. */
export async function withoutFaults(origin: string, headers: Record<string, string> = {}): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (const body of REQUESTS) {
    const [outcome] = await bySocket(origin, [body], headers);
    if (outcome?.kind !== "answered") throw new Error(`without faults: ${JSON.stringify(outcome)}`);
    answers.push({ samples: outcome.samples, steps: outcome.steps! });
  }
  return answers;
}

/** Concurrent requests on one socket. */
const PER_SOCKET = 3;

/** Send the requests of one round of a client, and add the outcomes to `tally`. */
export async function ask(
  origin: string,
  way: Way,
  random: Random,
  expected: readonly Answer[],
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
  // A refused client waits before its next request.
  if (outcomes.some(({ kind }) => kind !== "answered")) await sleep(200);
}

/** Add the outcome of a request to `tally`. */
export function judge(
  outcome: Outcome,
  way: Way,
  index: number,
  expected: readonly Answer[],
  tally: Tally,
): void {
  const name = `${way}, request ${index}`;
  if (outcome.kind === "refused") tally.refused++;
  else if (outcome.kind === "lost") tally.lost.push(`${name}: ${outcome.why}`);
  else {
    const { samples, steps } = expected[index]!;
    const compared = outcome.steps && compareSteps(outcome.steps, steps);
    tally.merged += compared?.merged ?? 0;
    tally.resumes += outcome.resumes;
    tally.answered[way]++;
    if (compared?.fault) tally.steps.push(`${name}: ${compared.fault}`);
    if (!sameSamples(outcome.samples, samples)) tally.different.push(name);
  }
}
