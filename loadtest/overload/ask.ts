/** Requests of `overload` and `soak` with their outcomes. */

import { setTimeout as sleep } from "node:timers/promises";
import type { GenerateRequest } from "../../src/client/types.ts";
import type { Schemas } from "../../src/server/openapi.ts";
import { closedLoop } from "../traffic/closed.ts";
import { post } from "../traffic/http.ts";

/** A request and its answer. Times on the clock of `performance.now()`. */
export interface Asked {
  sentAt: number;
  doneAt: number;
  /** 0 if the connection broke. */
  status: number;
  /** Seconds, if the request was refused. */
  retryAfter: number | undefined;
  deadlineMs: number | undefined;
  /** Of an answer. */
  finishReason: string | undefined;
}

/** Deadline of every other request, milliseconds. */
const DEADLINE_MS = 2000;

/** Return the request with this index; all differ, and every other one has a deadline. */
export const floodBody = (index: number): GenerateRequest => ({
  prompt: "Once upon a time",
  length: 32,
  steps: 8,
  seed: index,
  ...(index % 2 === 0 && { deadline_ms: DEADLINE_MS }),
});

/** Send a request. Does not reject. */
export async function ask(origin: string, body: GenerateRequest): Promise<Asked> {
  const sentAt = performance.now();
  const reply = await post(`${origin}/generate`, body).catch(() => undefined);
  const after = reply?.headers["retry-after"];
  const answer = reply?.status === 200 ? (JSON.parse(reply.body) as Schemas["GenerateResponse"]) : undefined;
  return {
    sentAt,
    doneAt: performance.now(),
    status: reply?.status ?? 0,
    retryAfter: after === undefined ? undefined : Number(after),
    deadlineMs: body.deadline_ms,
    finishReason: answer?.samples[0]?.finish_reason,
  };
}

/** Return the times of `perSecond` evenly spaced requests a second, in milliseconds. */
export const evenly = (perSecond: number, seconds: number): number[] =>
  Array.from({ length: Math.floor(perSecond * seconds) }, (_, i) => (i * 1000) / perSecond);

/** Return the answers a second of a closed loop with `clients` clients. */
export async function capacity(
  origin: string,
  clients: number,
  seconds: number,
  bodyOf: (index: number) => GenerateRequest,
): Promise<number> {
  const end = performance.now() + seconds * 1000;
  let [sent, answered] = [0, 0];
  const taken = await closedLoop(
    clients,
    async () => {
      const { status } = await ask(origin, bodyOf(sent++));
      if (status === 200) answered++;
      else await sleep(50);
    },
    () => performance.now() < end,
  );
  return answered / taken;
}
