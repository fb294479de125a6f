import assert from "node:assert/strict";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { Writable } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Schemas, validator } from "../../../src/server/openapi.ts";
import { Outbox, type ServerEvent } from "../../../src/server/streaming/outbox.ts";
import { EventStream, startEvents } from "../../../src/server/streaming/sse.ts";
import { post } from "../../support/http.ts";
import { serve } from "../support.ts";

const { engine, app, origin } = await serve();

interface Message {
  id: string | undefined;
  event: string;
  data: ServerEvent;
}

/** Return the complete messages in the text of a stream. */
function parse(text: string): Message[] {
  return text
    .split("\n\n")
    .slice(0, -1)
    .filter((block) => block.includes("data: "))
    .map((block) => {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1];
      return { id: field("id"), event: field("event")!, data: JSON.parse(field("data")!) };
    });
}

const stream = (body: object, headers: Record<string, string> = {}, signal?: AbortSignal) =>
  post(`${origin}/generate`, body, { accept: "text/event-stream", ...headers }, signal);

const steps = (messages: Message[]) =>
  messages.flatMap(({ data }) => (data.type === "step" ? [{ ...data, id: "" }] : []));

const body = { prompt: "Once upon a time", length: 40, steps: 9, seed: 12, n: 2 };

test("a POST that accepts an event stream gets every step and the answer", async () => {
  const response = await stream(body);
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type")!, /^text\/event-stream/);
  const messages = parse(await response.text());
  assert.deepEqual(
    messages.map(({ event }) => event),
    ["accepted", ...new Array(18).fill("step"), "done"],
  );
  const check = validator("ServerEvent");
  for (const { data, event, id } of messages) {
    assert.deepEqual(check(data), { value: data });
    assert.equal(data.type, event);
    assert.match(id!, /^12:/);
  }
  const done = messages.at(-1)!.data as Schemas["DoneEvent"];
  const { samples } = (await (
    await stream(body, { accept: "application/json" })
  ).json()) as Schemas["GenerateResponse"];
  assert.deepEqual(done.samples, samples);
  for (const [i, sample] of samples.entries()) {
    const reveals = steps(messages)
      .filter(({ sample }) => sample === i)
      .flatMap(({ revealed }) => revealed)
      .sort((a, b) => a.position - b.position);
    assert.deepEqual(
      reveals.map(({ token }) => token),
      sample.tokens,
    );
  }
});

/** Accept headers, and whether each is answered with events. */
const ACCEPTED: [accept: string | undefined, events: boolean][] = [
  ["text/event-stream", true],
  ["TEXT/Event-Stream", true],
  ["text/event-stream; charset=utf-8", true],
  ["text/event-stream;q=0.001", true],
  ["text/*", true],
  ["text/event-stream, */*;q=0.1", true],
  ["*/*, text/event-stream", true],
  ["application/json;q=0.5, text/event-stream", true],
  ["application/json;q=0, */*", true],
  ["text/event-stream, application/json", true],
  ["application/json, text/event-stream", false],
  ["application/json, text/event-stream;q=0.9", false],
  ["text/event-stream;q=0", false],
  ["text/event-stream; q=0.0, application/json", false],
  ["*/*, text/event-stream;q=0", false],
  ["text/event-streams, x-text/event-stream", false],
  ['application/json; a="text/event-stream, text/event-stream"', false],
  ["*/*", false],
  ["text/html", false],
  ["", false],
  [undefined, false],
];

for (const [accept, events] of ACCEPTED)
  test(`Accept ${JSON.stringify(accept)} is answered with ${events ? "events" : "JSON"}`, async () => {
    const { statusCode, headers } = await app.inject({
      ...{ method: "POST", url: "/generate", payload: { prompt: "a", length: 1, steps: 1 } },
      headers: accept === undefined ? {} : { accept },
    });
    assert.equal(statusCode, 200);
    assert.match(headers["content-type"] as string, events ? /^text\/event-stream/ : /^application\/json/);
  });

test("a stream resumes after any event with Last-Event-ID: no step repeated, none missing", async () => {
  const whole = parse(await (await stream(body)).text());
  const inOrder = (a: { sample: number; step: number }, b: { sample: number; step: number }) =>
    a.sample - b.sample || a.step - b.step;
  for (const [k, { id }] of whole.entries()) {
    // The seed may be in the event id only.
    const { seed: _, ...unseeded } = body;
    const rest = parse(await (await stream(k % 2 ? body : unseeded, { "last-event-id": id! })).text());
    assert.ok(!rest.some(({ event }) => event === "accepted"));
    assert.equal(rest.at(-1)!.event, "done");
    const both = [...steps(whole.slice(0, k + 1)), ...steps(rest)];
    assert.deepEqual(both.toSorted(inOrder), steps(whole).toSorted(inOrder));
  }
});

test("an error before the stream begins is a problem", async () => {
  const refused: [object, Record<string, string>, number, string | undefined][] = [
    [{ ...body, steps: 0 }, {}, 400, "/steps"],
    [{ prompt: "x ".repeat(2000) }, {}, 413, "/prompt"],
    [body, { "last-event-id": "nonsense" }, 400, "/headers/Last-Event-ID"],
    [body, { "last-event-id": "13:1" }, 400, "/headers/Last-Event-ID"],
    [{ ...body, seed: undefined }, { "last-event-id": "9999999999999999:1" }, 400, "/headers/Last-Event-ID"],
  ];
  for (const [content, headers, status, path] of refused) {
    const response = await stream(content, headers);
    assert.equal(response.status, status);
    const problem = (await response.json()) as Schemas["Problem"];
    assert.equal(problem.errors![0]!.path, path);
  }
});

test("with a deadline, done alone has an id: the skipped steps depend on the clock", async () => {
  const messages = parse(await (await stream({ ...body, deadline_ms: 60_000 })).text());
  const last = messages.pop()!;
  assert.ok(messages.length > 2 && messages.every(({ id }) => id === undefined));
  assert.match(last.id!, /:done$/);
});

/** Send the request in the URL, as the EventSource of browsers does. */
const get = (request: object, headers: Record<string, string> = {}) =>
  fetch(`${origin}/generate?request=${encodeURIComponent(JSON.stringify(request))}`, {
    headers: { accept: "text/event-stream", ...headers },
  });

test("a GET has the events of the same POST, resumes, and is answered 204 after its end", async () => {
  const posted = parse(await (await stream(body)).text());
  const got = parse(await (await get(body)).text());
  assert.deepEqual(
    got.map(({ id, event }) => [id, event]),
    posted.map(({ id, event }) => [id, event]),
  );
  assert.deepEqual(steps(got), steps(posted));
  const rest = parse(await (await get(body, { "last-event-id": got[7]!.id! })).text());
  assert.deepEqual([...steps(got.slice(0, 8)), ...steps(rest)].length, steps(got).length);
  for (const [id, status] of [
    [got.at(-1)!.id!, 204],
    [got.at(-2)!.id!, 200],
  ] as const)
    assert.equal((await get(body, { "last-event-id": id })).status, status, id);
  const whole = (await (await get(body, { accept: "*/*" })).json()) as Schemas["GenerateResponse"];
  assert.equal(whole.samples.length, 2);
});

/** What follows the path, and what the answer must name. */
const REFUSED_URLS: [query: string, path: string, message: RegExp][] = [
  ["", "/query/request", /must be given once, as JSON: \?request=/],
  ["?prompt=a", "/query/prompt", /put the fields into request/],
  ["?request={}&request={}", "/query/request", /must be given once/],
  ["?request=%7B", "/query/request", /is not JSON: /],
  ['?request={"prompt":"a","steps":0}', "/steps", />= 1/],
  ['?request={"prompt":"a","stpes":4}', "/stpes", /did you mean steps/],
];

for (const [query, path, message] of REFUSED_URLS)
  test(`GET /generate${query} is refused`, async () => {
    const { statusCode, body } = await app.inject(`/generate${query}`);
    assert.equal(statusCode, 400);
    const [error] = (JSON.parse(body) as Schemas["Problem"]).errors!;
    assert.equal(error!.path, path);
    assert.match(error!.message, message);
  });

test("the rows of a client that disconnects are freed", async () => {
  const controller = new AbortController();
  const response = await stream({ prompt: "", length: 200, steps: 1024 }, {}, controller.signal);
  await response.body!.getReader().read();
  controller.abort();
  for (let i = 0; i < 500 && engine.activeRows > 0; i++) await sleep(10);
  assert.equal(engine.activeRows, 0);
});

test("a slow reader gets merged steps, every reveal once, and can resume from any of them", async () => {
  let text = "";
  let release = () => {};
  const stuck = new Promise<void>((resolve) => {
    release = resolve;
  });
  // A response whose network accepts nothing until it is released.
  const network = new Writable({
    decodeStrings: false,
    write(chunk: string, _, done) {
      void stuck.then(() => {
        text += chunk;
        done();
      });
    },
  });
  const response = Object.assign(network, { setHeader() {}, writeHead() {} }) as unknown as ServerResponse;
  const outbox = new Outbox(new EventStream(response, { seed: 5, steps: [] }, true, {}));
  const padding = "x".repeat(1000);
  const step = (sample: number, step: number): ServerEvent => ({
    ...{ type: "step", id: "g", sample, step, steps: 1000, t: 0.5, masked: 1000 - step, text: padding },
    revealed: [{ position: step, token: sample, text: "a", logprob: -1 }],
  });
  for (let k = 1; k <= 1000; k++) for (const sample of [0, 1]) outbox.send(step(sample, k));
  assert.ok(network.writableLength < 300 * 1024, `${network.writableLength} bytes wait`);
  outbox.send({ type: "error", id: "g", error: { type: "", title: "", status: 500, detail: "" } });
  release();
  network.end();
  await once(network, "finish");
  const messages = parse(text);
  const received = messages.flatMap(({ data }) => (data.type === "step" ? [data] : []));
  assert.ok(received.length < 400);
  const seen = [0, 0];
  for (const { id, data } of messages) {
    if (data.type !== "step") continue;
    for (const { position, token } of data.revealed) {
      assert.equal(token, data.sample);
      assert.equal(position, ++seen[data.sample]!);
    }
    assert.equal(data.step, seen[data.sample]);
    assert.equal(id, seen[1] === 0 ? "5:1" : `5:${seen.join()}`);
  }
  assert.deepEqual(seen, [1000, 1000]);
  assert.equal(messages.at(-1)!.event, "error");
});

test("while nothing is sent, a comment is sent every 15 s until the response closes", async (context) => {
  context.mock.timers.enable({ apis: ["setInterval"] });
  const chunks: string[] = [];
  let taken = () => {};
  const network = new Writable({
    decodeStrings: false,
    write(chunk: string, _, done) {
      chunks.push(chunk);
      taken = done;
    },
  });
  const response = Object.assign(network, { setHeader() {}, writeHead() {} }) as unknown as ServerResponse;
  startEvents(response, {});
  context.mock.timers.tick(14_999);
  assert.deepEqual(chunks, []);
  context.mock.timers.tick(1);
  assert.deepEqual(chunks, [": still here\n\n"]);
  // The last one is still waiting for the network.
  context.mock.timers.tick(60_000);
  assert.equal(chunks.length, 1);
  taken();
  context.mock.timers.tick(15_000);
  assert.equal(chunks.length, 2);
  taken();
  network.destroy();
  await once(network, "close");
  context.mock.timers.tick(60_000);
  assert.equal(chunks.length, 2);
});
