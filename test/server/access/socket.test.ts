/** Keys and origins of WebSockets. */

import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import { WebSocket } from "ws";
import type { LimitStore } from "../../../src/quota/memory.ts";
import { createKey } from "../../../src/server/access/keys.ts";
import { TINY_GUIDED } from "../../support/engine.ts";
import { until } from "../../support/until.ts";
import { listen, StreamClient, serve } from "../support.ts";
import { TestKeys } from "./support.ts";

const keys = await TestKeys.create({ alice: {}, bob: {} });
const access = { keys: keys.ring, allowedOrigins: ["https://app.example"] };
const { engine, origin } = await serve({}, TINY_GUIDED, { access, authMs: 300 });

const request = { type: "generate", id: "a", prompt: "a", length: 4, steps: 2, seed: 1 };

/** Return the status of a refused handshake. */
function refusal(path: string, headers: Record<string, string> = {}): Promise<number> {
  const socket = new WebSocket(`${origin.replace("http", "ws")}${path}`, { headers });
  return new Promise((resolve, reject) => {
    socket.once("unexpected-response", (sent, response) => {
      sent.destroy();
      resolve(response.statusCode!);
    });
    socket.once("open", () => {
      socket.terminate();
      reject(new Error("it was opened"));
    });
    socket.on("error", () => {});
  });
}

test("a key in either header of the handshake opens the socket", async () => {
  for (const headers of [{ authorization: `Bearer ${keys.keys.alice}` }, { "x-api-key": keys.keys.alice! }]) {
    const client = await StreamClient.connect(origin, { headers });
    client.send(request);
    assert.equal((await client.end("a")).type, "done");
    // The socket stays open after the time limit for a key.
    await new Promise((resolve) => setTimeout(resolve, 500));
    client.send({ ...request, id: "b" });
    assert.equal((await client.end("b")).type, "done");
    client.socket.close();
  }
});

test("a key in the first message opens the socket, and messages right after it are answered", async () => {
  const client = await StreamClient.connect(origin);
  client.send({ type: "auth", key: keys.keys.alice });
  client.send(request);
  assert.equal((await client.end("a")).type, "done");
  assert.deepEqual(client.events[0], { type: "authenticated" });
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.equal(client.socket.readyState, client.socket.OPEN);
  client.socket.close();
});

const STRANGERS: [name: string, message: () => unknown][] = [
  ["a request before a key", () => request],
  ["a wrong key", () => ({ type: "auth", key: createKey("alice", {}).key })],
  ["a key that is none", () => ({ type: "auth", key: "x" })],
  ["a message that is not JSON", () => "{"],
  ["an auth message with a field too many", () => ({ type: "auth", key: keys.keys.alice, more: 1 })],
  ["an auth message of two kilobytes", () => `{"type":"auth",${" ".repeat(2000)}"key":"${keys.keys.alice}"}`],
  ["an auth message that never ends", () => "x".repeat(100_000)],
];

for (const [name, message] of STRANGERS)
  test(`${name} closes the socket with 4401, and runs nothing`, async () => {
    const client = await StreamClient.connect(origin);
    client.send(message());
    client.send({ ...request, id: "sneaky" });
    assert.equal(await client.closed, 4401);
    assert.deepEqual(
      client.events.map((event) => event.type === "error" && event.error.status),
      [401],
    );
    assert.ok(!JSON.stringify(client.events).includes("didi_alice"));
  });

test("a socket without a key in time is closed", async () => {
  const silent = await StreamClient.connect(origin);
  assert.equal(await silent.closed, 4401);
  assert.equal(silent.events.length, 1);
});

test("an incomplete message that is too long for a key closes the socket", async () => {
  const { app: patient, origin: at } = await listen(engine, { access: { keys: keys.ring }, authMs: 60_000 });
  const client = await StreamClient.connect(at);
  const { _socket } = client.socket as unknown as { _socket: Socket };
  // The head of a frame of 500,000 bytes, and a tenth of it.
  _socket.write(
    Buffer.concat([Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0, 7, 161, 32, 0, 0, 0, 0]), Buffer.alloc(50_000)]),
  );
  assert.equal(await client.closed, 4401);
  await patient.close();
});

test("a second key on a socket: the same is accepted, another refused, a wrong one closes it", async () => {
  const client = await StreamClient.connect(origin);
  const isError = (event: { type: string }) => event.type === "error";
  for (let i = 0; i < 2; i++) client.send({ type: "auth", key: keys.keys.alice });
  client.send({ type: "auth", key: keys.keys.bob });
  client.send(request);
  assert.equal((await client.end("a")).type, "done");
  const received = client.events.filter((event) => event.type === "authenticated" || isError(event));
  assert.deepEqual(
    received.map((event) => (event.type === "error" ? event.error.errors?.[0]?.path : event.type)),
    ["authenticated", "authenticated", "/key"],
  );
  client.send({ type: "auth", key: createKey("alice", {}).key });
  assert.equal(await client.closed, 4401);
});

test("a key that is revoked during the handshake closes the socket", async () => {
  const own = await TestKeys.create({ alice: { requests_per_minute: 100 } });
  let removed = Promise.resolve();
  const slow: LimitStore = {
    async take() {
      removed = own.remove("alice");
      await removed;
      return { used: 1, resetMs: 60_000 };
    },
  };
  const { app: its, origin: at } = await listen(engine, { access: { keys: own.ring }, store: slow });
  const client = await StreamClient.connect(at, { headers: { "x-api-key": own.keys.alice! } });
  assert.equal(await client.closed, 4401);
  await its.close();
});

test("a handshake with a wrong key, or with a key in its URL, is refused like any request", async () => {
  assert.equal(await refusal("/generate/stream", { authorization: "Bearer x" }), 401);
  assert.equal(await refusal(`/generate/stream?api_key=${keys.keys.alice}`), 400);
  const headers = { "x-api-key": keys.keys.alice! };
  assert.equal(await refusal(`/generate/stream?token=${keys.keys.alice}`, headers), 400);
  assert.equal(await refusal("/model", headers), 400);
});

test("when a key is revoked its sockets close with 4401 and free their rows; others stay open", async () => {
  const own = await TestKeys.create({ alice: {}, bob: {} });
  const { app: its, origin: at } = await listen(engine, { access: { keys: own.ring } });
  const first = await StreamClient.connect(at);
  first.send({ type: "auth", key: own.keys.alice });
  const second = await StreamClient.connect(at, { headers: { "x-api-key": own.keys.alice! } });
  const other = await StreamClient.connect(at, { headers: { "x-api-key": own.keys.bob! } });
  for (const client of [first, second])
    client.send({ ...request, length: 20, steps: 1024, n: 16, seed: undefined });
  await until("32 rows are active", () => engine.activeRows === 32);
  await own.remove("alice");
  assert.deepEqual([await first.closed, await second.closed], [4401, 4401]);
  assert.equal(engine.activeRows, 0);
  other.send(request);
  assert.equal((await other.end("a")).type, "done");
  other.socket.close();
  await its.close();
});

test("a server without keys accepts any key", async () => {
  const { app: free, origin: at } = await listen(engine, { authMs: 50 });
  const client = await StreamClient.connect(at);
  client.send({ type: "auth", key: "anything" });
  await client.find((event): event is { type: "authenticated" } => event.type === "authenticated");
  await new Promise((resolve) => setTimeout(resolve, 150));
  client.send(request);
  assert.equal((await client.end("a")).type, "done");
  client.socket.close();
  await free.close();
});

test("pages of this server and of allowed origins, and clients without one, may open a socket", async () => {
  const opens = async (named: string) => {
    const headers = { origin: named, "x-api-key": keys.keys.alice! };
    const client = await StreamClient.connect(origin, { headers }).catch(() => undefined);
    client?.socket.close();
    return client !== undefined;
  };
  assert.ok(await opens(origin));
  assert.ok(await opens("https://app.example"));
  for (const named of [
    "https://evil.example",
    "http://app.example",
    "https://app.example.evil.example",
    "https://app.example:8443",
    "http://127.0.0.1",
    "null",
    "x",
  ]) {
    assert.ok(!(await opens(named)), named);
    assert.equal(await refusal("/generate/stream", { origin: named }), 403);
  }
});

test("several hundred messages at once are all answered, in order", async () => {
  const client = await StreamClient.connect(origin, { headers: { "x-api-key": keys.keys.alice! } });
  for (let i = 0; i < 600; i++) client.send({ type: "cancel", id: `g${i}` });
  client.send(request);
  assert.equal((await client.end("a")).type, "done");
  const ids = client.events.flatMap((event) => (event.type === "error" ? [event.id] : []));
  assert.deepEqual(
    ids,
    Array.from({ length: 600 }, (_, i) => `g${i}`),
  );
  client.socket.close();
});
