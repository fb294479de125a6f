/** The closed loop: each client sends its next request when the last one has been answered. */

import { faultKind } from "./fault.ts";
import type { Answer, Recorder } from "./recorder.ts";
import type { Ask } from "./traffic.ts";

/**
 * Run clients at the same time; each calls `send` with its index and its round while `more(round)` is true.
 * Return the seconds from the first request to the last answer. Rejects as soon as a call of `send` does.
 *
 *     const seconds = await closedLoop(8, (client, round) => ask(client, round), (round) => round < 10);
 */
export async function closedLoop(
  clients: number,
  send: (client: number, round: number) => Promise<unknown>,
  more: (round: number) => boolean,
): Promise<number> {
  const started = performance.now();
  const run = async (_: unknown, client: number) => {
    for (let round = 0; more(round); round++) await send(client, round);
  };
  await Promise.all(Array.from({ length: clients }, run));
  return (performance.now() - started) / 1000;
}

/** Send a request and record its outcome; latency counts from `since` (of `performance.now()`). */
export async function timed(
  { shape }: Ask,
  since: number,
  recorder: Recorder,
  send: () => Promise<Answer>,
): Promise<void> {
  try {
    const answer = await send();
    recorder.success(shape, performance.now() - since, answer);
  } catch (error) {
    const kind = faultKind(error);
    if (kind !== "interrupted") recorder.failure(kind);
  }
}
