import assert from "node:assert/strict";
import { test } from "node:test";
import { type Schemas, validator } from "../../../src/server/openapi.ts";
import { post } from "../../support/http.ts";
import { until } from "../../support/until.ts";
import { listen, StreamClient, serve } from "../support.ts";

const { engine, origin } = await serve();

const checkEvent = validator("ServerEvent");
const isError = (event: { type: string }): event is Schemas["ErrorEvent"] => event.type === "error";

test("several requests on one socket: each streams every step, and its reveals give its tokens", async () => {
  const client = await StreamClient.connect(origin);
  const requests = [
    { id: "a", prompt: "Once upon a time", length: 40, steps: 16, seed: 1 },
    { id: "b", prompt: "", length: 64, steps: 4, seed: 2, temperature: 0.8 },
    { id: "c", prompt: "The dog", length: 3, steps: 30, seed: 3 },
  ];
  for (const request of requests) client.send({ type: "generate", ...request });
  for (const { id, length, steps, seed, ...rest } of requests) {
    const done = await client.end(id);
    assert.equal(done.type, "done");
    if (done.type !== "done") return;
    const own = client.events.filter((event) => "id" in event && event.id === id);
    const { spans, ...accepted } = own[0] as Schemas["AcceptedEvent"];
    assert.deepEqual(accepted, { type: "accepted", id, seed });
    assert.equal(own.at(-1), done);
    for (const event of own) assert.deepEqual(checkEvent(structuredClone(event)), { value: event });

    const tokens = new Map<number, number>();
    for (const [k, step] of client.steps(id).entries()) {
      assert.deepEqual([step.sample, step.step, step.steps], [0, k + 1, steps]);
      for (const { position, token } of step.revealed) {
        assert.ok(!tokens.has(position));
        tokens.set(position, token);
      }
      assert.equal(step.masked, length - tokens.size);
      // Text stops at an end of text; before that, every masked position shows.
      const ended = [...tokens.values()].includes(engine.model.manifest.end_of_text_token_id);
      const shown = [...step.text].filter((character) => character === "░").length;
      assert.ok(ended ? shown <= step.masked : shown === step.masked, `${shown} of ${step.masked} masks`);
    }
    const prompt = done.usage.prompt_tokens;
    assert.deepEqual(spans, [{ start: prompt, length }]);
    const assembled = Array.from({ length }, (_, i) => tokens.get(prompt + i));
    assert.deepEqual(assembled, done.samples[0]!.tokens);
    assert.equal(client.steps(id).at(-1)!.text, done.samples[0]!.text);

    const posted = await post(`${origin}/generate`, { length, steps, seed, ...rest });
    assert.deepEqual(((await posted.json()) as Schemas["GenerateResponse"]).samples, done.samples);
  }
  client.socket.close();
});

const BAD: [name: string, message: string, path: string | undefined, id: string | undefined][] = [
  ["no JSON", "{", undefined, undefined],
  ["no object", "null", "/type", undefined],
  ["an unknown type", '{"type": "generte", "id": "x"}', "/type", "x"],
  ["no id", '{"type": "generate", "prompt": ""}', "/id", undefined],
  ["an unknown field", '{"type": "generate", "id": "x", "prompt": "", "stpes": 2}', "/stpes", "x"],
  ["a value out of range", '{"type": "generate", "id": "x", "prompt": "", "steps": 5000}', "/steps", "x"],
  [
    "a canvas that does not fit",
    '{"type": "generate", "id": "x", "prompt": "", "length": 300}',
    "/length",
    "x",
  ],
  ["cancelling what does not run", '{"type": "cancel", "id": "ghost"}', "/id", "ghost"],
];

for (const [name, message, path, id] of BAD)
  test(`${name} is an error event, and the socket stays usable`, async () => {
    const client = await StreamClient.connect(origin);
    client.send(message);
    const { error, id: named } = await client.find(isError);
    assert.equal(error.errors?.[0]?.path, path);
    assert.equal(named, id);
    client.send({ type: "generate", id: "after", prompt: "", length: 4, steps: 2, seed: 1 });
    assert.equal((await client.end("after")).type, "done");
    for (const event of client.events) assert.deepEqual(checkEvent(structuredClone(event)), { value: event });
    client.socket.close();
  });

test("a binary frame is an error event", async () => {
  const client = await StreamClient.connect(origin);
  client.socket.send(Buffer.from("{}"));
  assert.match((await client.find(isError)).error.detail, /text frame/);
  client.socket.close();
});

test("an id is in use while its request runs, and free afterwards", async () => {
  const client = await StreamClient.connect(origin);
  const message = { type: "generate", id: "one", prompt: "", length: 32, steps: 32, seed: 9 };
  client.send(message);
  client.send(message);
  assert.match((await client.find(isError)).error.detail, /one belongs to a running request/);
  const done = (event: { type: string }): event is Schemas["DoneEvent"] => event.type === "done";
  await client.find(done);
  client.events.length = 0;
  client.send(message);
  await client.find(done);
  client.socket.close();
});

test("cancel ends a request with an error event and no further step", async () => {
  const client = await StreamClient.connect(origin);
  client.send({ type: "generate", id: "long", prompt: "", length: 200, steps: 1024, seed: 1 });
  await client.find((event): event is Schemas["StepEvent"] => event.type === "step");
  client.send({ type: "cancel", id: "long" });
  const end = await client.end("long");
  assert.equal(end.type === "error" && end.error.type, "urn:didi-serve:problem:cancelled");
  assert.equal(engine.activeRows, 0);
  client.send({ type: "generate", id: "next", prompt: "", length: 4, steps: 1, seed: 1 });
  await client.end("next");
  const after = client.events.at(client.events.indexOf(end) + 1)!;
  assert.equal("id" in after && after.id, "next");
  client.socket.close();
});

test("the rows of a vanished socket are freed", async () => {
  const client = await StreamClient.connect(origin);
  for (const id of ["a", "b"]) client.send({ type: "generate", id, prompt: "", length: 200, steps: 1024 });
  await until("both rows are active", () => engine.activeRows === 2);
  client.socket.terminate();
  await until("no row is active", () => engine.activeRows === 0);
});

test("a socket that does not answer pings is closed; one that only reads slowly stays open", async () => {
  const { app: pinging, origin } = await listen(engine, { pingMs: 60 });
  const [alive, dead, slow] = [
    await StreamClient.connect(origin),
    await StreamClient.connect(origin, { autoPong: false }),
    await StreamClient.connect(origin),
  ];
  const sockets = [...pinging.websocketServer.clients];
  sockets[2]!.pause();
  assert.equal(await dead!.closed, 1006);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(alive!.socket.readyState, alive!.socket.OPEN);
  assert.equal(slow!.socket.readyState, slow!.socket.OPEN);
  await pinging.close();
});

test("messages are compressed for clients on other machines, and not on this machine", async () => {
  const bytesOf = async (headers: Record<string, string>) => {
    const client = await StreamClient.connect(origin, { headers });
    client.send({ type: "generate", id: "a", prompt: "", length: 120, steps: 4, seed: 6 });
    await client.end("a");
    const { bytesRead } = (client.socket as unknown as { _socket: { bytesRead: number } })._socket;
    client.socket.close();
    return { bytesRead, events: client.events.filter(({ type }) => type === "step") };
  };
  const [near, far] = [await bytesOf({}), await bytesOf({ "x-forwarded-for": "192.0.2.1" })];
  assert.deepEqual(far.events, near.events);
  assert.ok(far.bytesRead < near.bytesRead / 2, `${far.bytesRead} of ${near.bytesRead} bytes`);
});
