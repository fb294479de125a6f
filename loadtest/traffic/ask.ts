/** Requests of a load: sent at a given rate or by clients that wait, each with what came of it. */

import { Agent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { GenerateRequest as Body } from "../../src/client/types.ts";
import type { Schemas } from "../../src/http/openapi.ts";

/** A request and its answer. Times on the clock of `performance.now()`. */
export interface Asked {
  sentAt: number;
  doneAt: number;
  /** 0 if the connection broke. */
  status: number;
  /** Seconds; of a refusal. */
  retryAfter: number | undefined;
  deadlineMs: number | undefined;
  /** Of an answer. */
  finishReason: string | undefined;
}

const agent = new Agent({ keepAlive: true, maxSockets: 2000 });

/** Sends one; never rejects. */
export function ask(origin: string, body: Body): Promise<Asked> {
  const sentAt = performance.now();
  return new Promise((resolve) => {
    const end = (status: number, retryAfter?: number, finishReason?: string) =>
      resolve({
        sentAt,
        doneAt: performance.now(),
        status,
        retryAfter,
        deadlineMs: body.deadline_ms,
        finishReason,
      });
    const options = { method: "POST", agent, headers: { "content-type": "application/json" } };
    const asked = request(`${origin}/generate`, options, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("error", () => end(0));
      response.on("end", () => {
        const { statusCode = 0, headers } = response;
        const after = headers["retry-after"];
        const answer = statusCode === 200 ? (JSON.parse(text) as Schemas["GenerateResponse"]) : undefined;
        end(statusCode, after === undefined ? undefined : Number(after), answer?.samples[0]?.finish_reason);
      });
    });
    asked.on("error", () => end(0));
    asked.end(JSON.stringify(body));
  });
}

/** Sends `perSecond` a second for so many seconds, whatever becomes of them; resolves when all have ended. */
export async function openLoop(
  origin: string,
  perSecond: number,
  seconds: number,
  bodyOf: (index: number) => Body,
  onEnd: (asked: Asked) => void = () => {},
  stopped: () => boolean = () => false,
): Promise<Asked[]> {
  const all: Promise<Asked>[] = [];
  const started = performance.now();
  let sent = 0;
  while (!stopped()) {
    const elapsed = (performance.now() - started) / 1000;
    if (elapsed >= seconds) break;
    for (const due = Math.floor(elapsed * perSecond); sent < due; sent++)
      all.push(
        ask(origin, bodyOf(sent)).then((asked) => {
          onEnd(asked);
          return asked;
        }),
      );
    await sleep(5);
  }
  return Promise.all(all);
}

/** Answers a second that `clients` clients get which ask without a pause. */
export async function capacity(
  origin: string,
  clients: number,
  seconds: number,
  bodyOf: (index: number) => Body,
): Promise<number> {
  const started = performance.now();
  let index = 0;
  let answered = 0;
  const client = async () => {
    while (performance.now() - started < seconds * 1000) {
      const { status } = await ask(origin, bodyOf(index++));
      if (status === 200) answered++;
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return answered / ((performance.now() - started) / 1000);
}
