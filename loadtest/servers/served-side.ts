/** The server under test, with every transport and both loops. */

import type { SideInfo } from "../report/types.ts";
import { timed } from "../traffic/closed.ts";
import { arrivals, keptUp, openLoop } from "../traffic/open.ts";
import { requestOf, traffic } from "../traffic/traffic.ts";
import { type Send, Transports } from "../traffic/transports.ts";
import { type Job, runClosed, type Side, type Taken } from "./side.ts";
import type { ServerWatch } from "./watch.ts";

/** A didi-serve. */
export class ServedSide implements Side {
  readonly #transports: Transports;

  constructor(
    readonly info: SideInfo,
    readonly watch: ServerWatch,
    readonly stop: () => Promise<unknown>,
  ) {
    this.#transports = new Transports(watch.origin);
  }

  async run(job: Job): Promise<Taken> {
    const { cell, amount } = job;
    if (cell.transport === "none") throw new TypeError("a server needs a transport");
    const send = this.#transports.send(cell.transport);
    if (cell.load.kind === "closed") return runClosed(job, (ask, limit) => send(requestOf(ask), limit));
    if (!("seconds" in amount)) throw new TypeError("an open loop takes seconds");
    return this.#open(job, send, cell.load.rate, amount.seconds);
  }

  async #open(
    { cell, recorder, seeds, signal, timeoutMs }: Job,
    send: Send,
    rate: number,
    seconds: number,
  ): Promise<Taken> {
    const asks = traffic(cell.shapes, seeds);
    const times = arrivals(rate, seconds, seeds.take());
    const started = performance.now();
    let shortest = Number.POSITIVE_INFINITY;
    await openLoop(
      times,
      async (intended) => {
        const ask = asks.next().value;
        const sent = performance.now();
        recorder.times.record("send_lag", sent - intended);
        await timed(ask, intended, recorder, () =>
          send(requestOf(ask), AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])),
        );
        shortest = Math.min(shortest, performance.now() - sent);
      },
      signal,
    );
    const lastAnswer = (performance.now() - started) / 1000;
    const outcome = { offered: times.length, seconds, answered: recorder.requests, lastAnswer };
    return {
      seconds: Math.max(seconds, lastAnswer),
      keptUp: keptUp({ ...outcome, shortest: Number.isFinite(shortest) ? shortest / 1000 : 0 }),
    };
  }

  async close(): Promise<void> {
    this.#transports.close();
    await this.stop();
  }
}
