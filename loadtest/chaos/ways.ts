/** The transports: POST, server-sent events with broken and resumed connections, and WebSockets. */

import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { EventParser } from "../../src/client/event-parser.ts";
import { type ServerEvent, StreamClient } from "../../test/server/support.ts";
import { open, post } from "../traffic/http.ts";
import type { Random } from "../traffic/random.ts";
import type { Answer, Body, Sample, Step } from "./requests.ts";

/** The outcome of a request. */
export type Outcome =
  | { kind: "answered"; resumes: number; steps: Step[] | undefined; samples: Sample[] }
  /** Refused with 429 or 503. */
  | { kind: "refused"; status: number }
  /** Accepted and not answered correctly. */
  | { kind: "lost"; why: string };

/** Time limit of an answer. */
const TIMEOUT_MS = 60_000;
/** Most times that a stream is broken off. */
const MOST_BREAKS = 3;

const refusal = (status: number | undefined): Outcome | undefined =>
  status === 429 || status === 503 ? { kind: "refused", status } : undefined;

/** Send a request by POST. */
export async function byPost(origin: string, body: Body): Promise<Outcome> {
  const reply = await post(`${origin}/generate`, body, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const { status } = reply;
  if (status !== 200)
    return refusal(status) ?? { kind: "lost", why: `${status}: ${reply.body.slice(0, 200)}` };
  const { samples } = JSON.parse(reply.body) as { samples: Sample[] };
  return { kind: "answered", resumes: 0, steps: undefined, samples };
}

/** Request events, break the connection at random, and resume after the last event. */
export async function byEvents(origin: string, body: Body, random: Random): Promise<Outcome> {
  const steps: Step[] = [];
  let resumes = 0;
  let lastId: string | undefined;
  for (;;) {
    const breakAfter = resumes < MOST_BREAKS && random.chance(0.5) ? random.integer(1, 6) : undefined;
    const headers = { accept: "text/event-stream", ...(lastId && { "last-event-id": lastId }) };
    const response = await open(`${origin}/generate`, body, {
      headers,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (response.statusCode !== 200) {
      const said = await text(response);
      // A refused resumption is tried again: the request was accepted and must be answered.
      if (refusal(response.statusCode) && lastId !== undefined) {
        await sleep(200);
        continue;
      }
      return (
        refusal(response.statusCode) ?? { kind: "lost", why: `${response.statusCode}: ${said.slice(0, 200)}` }
      );
    }
    const parser = new EventParser();
    let events = 0;
    let samples: Sample[] | undefined;
    let broken = false;
    reading: for await (const chunk of response.setEncoding("utf8"))
      for (const { id, data } of parser.push(chunk)) {
        const event = JSON.parse(data) as ServerEvent;
        if (samples) return { kind: "lost", why: `an event after done: ${event.type}` };
        if (event.type === "error") return { kind: "lost", why: `error event: ${event.error.detail}` };
        lastId = id;
        if (event.type === "step") steps.push(event);
        if (event.type === "done") samples = event.samples;
        else if (++events === breakAfter) {
          broken = true;
          break reading;
        }
      }
    if (samples) return { kind: "answered", resumes, steps, samples };
    if (!broken) return { kind: "lost", why: "the stream ended before done" };
    resumes++;
  }
}

/** Send several requests at once on one socket; return an outcome for each. Rejects if it does not open. */
export async function bySocket(
  origin: string,
  bodies: readonly Body[],
  headers: Record<string, string> = {},
): Promise<Outcome[]> {
  const client = await StreamClient.connect(origin, { headers });
  const ids = bodies.map((_, i) => `g${i}`);
  for (const [i, body] of bodies.entries()) client.send({ type: "generate", id: ids[i], ...body });
  const code = await Promise.race([
    Promise.all(ids.map((id) => client.end(id))).then(() => undefined),
    client.closed,
  ]);
  // A repeated event would arrive now.
  await sleep(50);
  client.socket.close();
  return ids.map((id): Outcome => {
    const ends = client.events.filter(
      (event) => (event.type === "done" || event.type === "error") && event.id === id,
    );
    const [end] = ends;
    if (ends.length === 0) return { kind: "lost", why: `the socket closed with ${code}` };
    if (ends.length !== 1) return { kind: "lost", why: `${ends.length} ends of one request` };
    if (end!.type === "error") {
      const { status, detail } = end!.error;
      return refusal(status) ?? { kind: "lost", why: `error event: ${detail}` };
    }
    if (client.events.findLast((event) => "id" in event && event.id === id) !== end)
      return { kind: "lost", why: "a step after the end" };
    return {
      kind: "answered",
      resumes: 0,
      steps: client.steps(id),
      samples: (end as Answer & typeof end).samples as Sample[],
    };
  });
}
