/** The ways to ask: POST, server-sent events that break and are resumed, WebSockets. */

import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { EventParser } from "../../src/client/event-parser.ts";
import { type ServerEvent, StreamClient } from "../../test/http/support.ts";
import { open, post } from "../traffic/http.ts";
import type { Random } from "../traffic/random.ts";
import type { Body, Sample, Step, Told } from "./requests.ts";

/** What came of a request. */
export type Outcome =
  | { kind: "told"; resumes: number; steps: Step[] | undefined; samples: Sample[] }
  /** Not taken: 429 or 503. */
  | { kind: "refused"; status: number }
  /** Taken, and not answered as it should be. */
  | { kind: "lost"; why: string };

/** Longest that an answer may take. */
const TIMEOUT_MS = 60_000;
/** Times that a stream is broken at most. */
const MOST_BREAKS = 3;

const refusal = (status: number | undefined): Outcome | undefined =>
  status === 429 || status === 503 ? { kind: "refused", status } : undefined;

/** Asks and waits. */
export async function byPost(origin: string, body: Body): Promise<Outcome> {
  const reply = await post(`${origin}/generate`, body, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const { status } = reply;
  if (status !== 200)
    return refusal(status) ?? { kind: "lost", why: `${status}: ${reply.body.slice(0, 200)}` };
  const { samples } = JSON.parse(reply.body) as { samples: Sample[] };
  return { kind: "told", resumes: 0, steps: undefined, samples };
}

/** Asks for events, breaks the connection at random, and goes on after the last one that came. */
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
      // A resumption that is refused is tried again: what was accepted has to be told to its end.
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
    if (samples) return { kind: "told", resumes, steps, samples };
    if (!broken) return { kind: "lost", why: "the stream ended before the generation did" };
    resumes++;
  }
}

/** Asks for several at once on one socket; an outcome for each. */
export async function bySocket(origin: string, bodies: readonly Body[]): Promise<Outcome[]> {
  const client = await StreamClient.connect(origin);
  const ids = bodies.map((_, i) => `g${i}`);
  for (const [i, body] of bodies.entries()) client.send({ type: "generate", id: ids[i], ...body });
  const broken = client.closed.then((code) => {
    throw new Error(`the socket closed with ${code}`);
  });
  await Promise.race([Promise.all(ids.map((id) => client.end(id))), broken]);
  // What comes too often comes now.
  await sleep(50);
  broken.catch(() => {});
  client.socket.close();
  return ids.map((id): Outcome => {
    const ends = client.events.filter(
      (event) => (event.type === "done" || event.type === "error") && event.id === id,
    );
    const [end] = ends;
    if (ends.length !== 1) return { kind: "lost", why: `${ends.length} ends of one generation` };
    if (end!.type === "error") {
      const { status, detail } = end!.error;
      return refusal(status) ?? { kind: "lost", why: `error event: ${detail}` };
    }
    if (client.events.findLast((event) => "id" in event && event.id === id) !== end)
      return { kind: "lost", why: "a step after the end" };
    return {
      kind: "told",
      resumes: 0,
      steps: client.steps(id),
      samples: (end as Told & typeof end).samples as Sample[],
    };
  });
}
