/**
 * The open loop: Poisson arrivals that do not wait for answers, so that a slow server does not reduce the
 * load.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { uniformsAt } from "../../src/diffusion/philox.ts";

/** Return the intended times of requests in milliseconds: Poisson arrivals, `rate` a second for `seconds`. */
export function arrivals(rate: number, seconds: number, seed: number): number[] {
  const key = { seed, sample: 0, step: 0, candidate: 0 };
  const times: number[] = [];
  for (let at = 0; ; ) {
    at -= (Math.log(uniformsAt(key, times.length).draw) / rate) * 1000;
    if (at >= seconds * 1000) return times;
    times.push(at);
  }
}

/**
 * Call `send` for each of `times` with the intended time (of `performance.now()`), and wait for all calls. A
 * late call is made at once, and its delay counts as latency. Stops sending when `signal` is aborted.
 */
export async function openLoop(
  times: readonly number[],
  send: (intended: number) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const started = performance.now();
  const sent: Promise<void>[] = [];
  for (const time of times) {
    const intended = started + time;
    const early = intended - performance.now();
    if (early > 0) await sleep(early, undefined, { signal }).catch(() => {});
    if (signal.aborted) break;
    sent.push(send(intended));
  }
  await Promise.all(sent);
}

/**
 * Return whether the server kept up with `offered` arrivals in `seconds`: it answered 0.9 of their rate, the
 * time of a request on an idle server not counted.
 *
 * `lastAnswer` is in seconds after the start, `shortest` the shortest latency in seconds.
 */
export function keptUp(run: {
  offered: number;
  seconds: number;
  answered: number;
  lastAnswer: number;
  shortest: number;
}): boolean {
  const { offered, seconds, answered, lastAnswer, shortest } = run;
  if (answered < 0.99 * offered) return false;
  const overtime = Math.max(0, lastAnswer - seconds - shortest);
  return answered / (seconds + overtime) >= (0.9 * offered) / seconds;
}
