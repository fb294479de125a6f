/** The server under test: every transport, both loops. */

import type { GenerateResponse } from "../../src/client/index.ts";
import type { SideInfo } from "../report/types.ts";
import { checkAnswer } from "../traffic/checker.ts";
import { closedLoop, closedPosts, type Endpoint, timed } from "../traffic/closed.ts";
import { Fault } from "../traffic/fault.ts";
import { arrivals, keptUp, openLoop } from "../traffic/open.ts";
import { requestOf, traffic } from "../traffic/traffic.ts";
import { answerOf, Transports } from "../traffic/transports.ts";
import { keyHeaders } from "./key.ts";
import type { Job, Side, Taken } from "./side.ts";
import type { ServerWatch } from "./watch.ts";

/** POST /generate of a didi-serve. */
export function generateEndpoint(origin: string): Endpoint {
  return {
    url: `${origin}/generate`,
    headers: keyHeaders(),
    body: requestOf,
    read(ask, body) {
      let answer: GenerateResponse;
      try {
        answer = JSON.parse(body) as GenerateResponse;
      } catch {
        throw new Fault("malformed", "the answer is not JSON");
      }
      checkAnswer(requestOf(ask), answer);
      return answerOf(answer);
    },
  };
}

/** A didi-serve. */
export class ServedSide implements Side {
  readonly #transports: Transports;
  readonly #endpoint: Endpoint;

  constructor(
    readonly info: SideInfo,
    readonly watch: ServerWatch,
    readonly stop: () => Promise<void>,
  ) {
    this.#transports = new Transports(watch.origin);
    this.#endpoint = generateEndpoint(watch.origin);
  }

  async run(job: Job): Promise<Taken> {
    const { cell, amount, recorder, seeds, signal, timeoutMs } = job;
    const asks = traffic(cell.shapes, seeds);
    if (cell.transport === "none") throw new TypeError("a server is asked over a transport");
    if (cell.load.kind === "closed" && "rounds" in amount) {
      const loop = {
        ...{ clients: cell.load.clients, rounds: amount.rounds },
        asks,
        recorder,
        signal,
        timeoutMs,
      };
      if (cell.transport === "post") return { seconds: await closedPosts(loop, this.#endpoint) };
      const send = this.#transports.send(cell.transport);
      return { seconds: await closedLoop(loop, (ask, limit) => send(requestOf(ask), limit)) };
    }
    if (cell.load.kind === "open" && "seconds" in amount)
      return this.#open(job, cell.load.rate, amount.seconds);
    throw new TypeError("rounds are of a closed loop, seconds of an open one");
  }

  async #open(
    { cell, recorder, seeds, signal, timeoutMs }: Job,
    rate: number,
    seconds: number,
  ): Promise<Taken> {
    const asks = traffic(cell.shapes, seeds);
    const send = this.#transports.send(cell.transport as "post" | "sse" | "ws");
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
