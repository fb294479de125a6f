/** A flood above the capacity of the server, and the answers to refused requests. */

import { setTimeout as sleep } from "node:timers/promises";
import { type Percentiles, percentiles } from "../report/checks.ts";
import type { Memory, Server } from "../servers/server.ts";
import { openLoop } from "../traffic/open.ts";
import { type Asked, ask, evenly, floodBody } from "./ask.ts";

/** Milliseconds after the flood in which answers are counted. */
const AFTERWARDS_MS = 5000;
/** Tolerance on deadlines: the running batch, the request's own batch, and the way back. */
const LATE_MS = 500;

/** The measurements of a flood. Milliseconds. */
export interface Flood {
  perSecond: number;
  seconds: number;
  sent: number;
  answered: number;
  refused: number;
  /** Neither answered nor refused. */
  other: number;
  /** Answers to requests with a deadline. */
  deadlines: { answered: number; cutShort: number; late: number; lateness: Percentiles };
  /** Retry-After, the time that the backlog of that moment took, and their ratio. */
  retryAfter: { said: Percentiles; took: Percentiles; ratio: Percentiles; true: number; of: number };
  memory: { second: number; server: number; workers: number }[];
  /** Answers a second just after the flood, while the server answered its backlog. */
  afterwardsPerSecond: number;
  /** Latency of a single request before the flood, and the time until it was at most 1.5 times that again. */
  aloneMs: number;
  aloneAgainAfterMs: number;
}

/** Return the median latency of a request without other load. */
async function alone(origin: string): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 7; i++) {
    const { sentAt, doneAt } = await ask(origin, { ...floodBody(1), seed: 1e9 + i });
    times.push(doneAt - sentAt);
  }
  return percentiles(times).median;
}

/**
 * Return the time at which a single request took at most `limitMs`; infinite if none does within a minute.
 */
async function untilAlone(origin: string, limitMs: number): Promise<number> {
  const started = performance.now();
  while (performance.now() - started < 60_000) {
    const { sentAt, doneAt, status } = await ask(origin, {
      ...floodBody(1),
      seed: Math.floor(performance.now()),
    });
    if (status === 200 && doneAt - sentAt <= limitMs) return doneAt;
  }
  return Number.POSITIVE_INFINITY;
}

/** Return for each refusal its Retry-After and the time that the earlier accepted requests took. Seconds. */
function truth(all: readonly Asked[]): { said: number; took: number }[] {
  const answered = all.filter(({ status }) => status === 200).toSorted((a, b) => a.sentAt - b.sentAt);
  const sent = answered.map(({ sentAt }) => sentAt);
  let last = 0;
  const lastDone = answered.map(({ doneAt }) => {
    last = Math.max(last, doneAt);
    return last;
  });
  return all.flatMap(({ status, retryAfter, doneAt }) => {
    if ((status !== 429 && status !== 503) || retryAfter === undefined) return [];
    const before = sent.findLastIndex((at) => at < doneAt);
    return before < 0 ? [] : [{ said: retryAfter, took: Math.max(0, lastDone[before]! - doneAt) / 1000 }];
  });
}

/** Retry-After is in whole seconds, so that it may be half a second off. */
const isTrue = ({ said, took }: { said: number; took: number }) =>
  (said <= 2 * took + 0.5 && said >= took / 2) || Math.abs(said - took) <= 1;

/** Flood the server. */
export async function flood(server: Server, perSecond: number, seconds: number): Promise<Flood> {
  const { origin } = server;
  const aloneMs = await alone(origin);
  const memory: Flood["memory"] = [];
  const started = performance.now();
  const sample = () => {
    const { server: own, workers }: Memory = server.memory();
    memory.push({ second: Math.round((performance.now() - started) / 1000), server: own, workers });
  };
  sample();
  const sampling = setInterval(sample, Math.max(1000, seconds * 25));
  const all: Asked[] = [];
  let sent = 0;
  const send = async () => void all.push(await ask(origin, floodBody(sent++)));
  await openLoop(evenly(perSecond, seconds), send, new AbortController().signal);
  const ended = started + seconds * 1000;
  const lastDone = Math.max(ended, ...all.map(({ doneAt }) => doneAt));
  const window = Math.min(AFTERWARDS_MS, lastDone - ended);
  const inWindow = all.filter(
    ({ status, doneAt }) => status === 200 && doneAt > ended && doneAt <= ended + window,
  );
  const aloneAgainAfterMs = (await untilAlone(origin, 1.5 * aloneMs + 20)) - lastDone;
  clearInterval(sampling);
  sample();
  const ok = all.filter(({ status }) => status === 200);
  const timed = ok.filter(({ deadlineMs }) => deadlineMs !== undefined);
  const lateness = timed.map(({ sentAt, doneAt, deadlineMs }) => Math.max(0, doneAt - sentAt - deadlineMs!));
  const refusals = truth(all);
  return {
    perSecond,
    seconds,
    sent: all.length,
    answered: ok.length,
    refused: all.filter(({ status }) => status === 429 || status === 503).length,
    other: all.filter(({ status }) => ![200, 429, 503].includes(status)).length,
    deadlines: {
      answered: timed.length,
      cutShort: timed.filter(({ finishReason }) => finishReason === "deadline").length,
      late: lateness.filter((ms) => ms > LATE_MS).length,
      lateness: percentiles(lateness),
    },
    retryAfter: {
      said: percentiles(refusals.map(({ said }) => said)),
      took: percentiles(refusals.map(({ took }) => took)),
      ratio: percentiles(refusals.map(({ said, took }) => said / Math.max(took, 0.1))),
      true: refusals.filter(isTrue).length,
      of: refusals.length,
    },
    memory,
    afterwardsPerSecond: window > 0 ? (1000 * inWindow.length) / window : 0,
    aloneMs,
    aloneAgainAfterMs,
  };
}

/** The outcome of requests that were sent again after their Retry-After. */
export interface Return {
  burst: number;
  refused: number;
  /** Accepted on the second attempt. */
  taken: number;
}

/** Send a burst and nothing else; send each refused request again, once, after its Retry-After. */
export async function burst(origin: string, size: number): Promise<Return> {
  const report: Return = { burst: size, refused: 0, taken: 0 };
  const client = async (_: unknown, i: number) => {
    const { status, retryAfter } = await ask(origin, floodBody(2 * i + 1));
    if (status !== 429) return;
    report.refused++;
    await sleep(retryAfter! * 1000);
    if ((await ask(origin, floodBody(1_000_001 + 2 * i))).status === 200) report.taken++;
  };
  await Promise.all(Array.from({ length: size }, client));
  return report;
}
