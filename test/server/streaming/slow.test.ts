/** Clients that do not read are disconnected in time; slow and waiting ones are not. */

import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { connect } from "node:net";
import { Writable } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { EventStream } from "../../../src/server/streaming/sse.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";
import { listen, postRaw, StreamClient } from "../support.ts";

const engine = await startEngine({}, TINY_GUIDED);

/** About ten megabytes of steps: more than the socket buffers hold. */
const LARGE = { prompt: "", length: 120, steps: 1024, n: 16, seed: 1 };
/** The largest allowed trace. */
const TRACED = { ...LARGE, length: 64, n: 4, trace: true };

async function bytesOf(response: IncomingMessage, pauseMs: number): Promise<number> {
  let bytes = 0;
  for await (const chunk of response) {
    bytes += chunk.length;
    if (pauseMs > 0 && bytes % 7 === 0) await sleep(pauseMs);
  }
  return bytes;
}

test("a client that reads nothing is disconnected", async () => {
  const { app, origin } = await listen(engine, { stallMs: 300 });
  const { length } = await (await fetch(`${origin}/openapi.yaml`)).text();
  const count = Math.ceil(20_000_000 / length);
  const givenUp = once(app.server, "connection").then(([socket]) => once(socket, "close"));
  const socket = connect(Number(new URL(origin).port), "127.0.0.1").on("error", () => {});
  socket.pause();
  socket.write("GET /openapi.yaml HTTP/1.1\r\nhost: a\r\n\r\n".repeat(count));
  await givenUp;
  let bytes = 0;
  // The rest of the answers is not sent.
  socket.on("data", (chunk) => {
    bytes += chunk.length;
  });
  socket.resume();
  await new Promise((resolve) => socket.once("close", resolve));
  assert.ok(bytes < count * length, `${bytes} bytes`);
});

test("a client that reads slowly gets its whole answer", async () => {
  const { origin } = await listen(engine, { stallMs: 1000 });
  const response = await postRaw(origin, "/generate", TRACED);
  assert.equal(await bytesOf(response, 20), Number(response.headers["content-length"]));
});

test("silence while the model runs is no stall", async () => {
  const { origin } = await listen(engine, { stallMs: 20 });
  const started = performance.now();
  const response = await postRaw(origin, "/generate", { ...LARGE, seed: 2 });
  assert.equal(response.statusCode, 200);
  assert.ok(performance.now() - started > 60, "it took no time, so this test shows nothing");
  response.resume();
});

test("a WebSocket whose client reads nothing is closed with its requests", async () => {
  const { app, origin } = await listen(engine, { pingMs: 100 });
  const client = await StreamClient.connect(origin);
  client.socket.pause();
  for (let i = 0; i < 4; i++) client.send({ type: "generate", id: `g${i}`, ...LARGE, seed: 10 + i });
  const [server] = app.websocketServer.clients;
  await new Promise((resolve) => server!.once("close", resolve));
  assert.equal(engine.activeRows + engine.queueLength, 0);
  client.socket.terminate();
});

test("a completion with a slow reader holds back only its last texts", async () => {
  const { origin } = await listen(engine);
  const body = { model: "tiny-guided", prompt: "", max_tokens: 120, steps: 1024, n: 16, seed: 3 };
  const response = await postRaw(origin, "/v1/completions", { ...body, stream: true, diffusing: true });
  const finished = new Promise((resolve) => engine.once("finished", resolve));
  await finished;
  const text = await new Promise<string>((resolve) => {
    let all = "";
    response.setEncoding("utf8").on("data", (chunk) => {
      all += chunk;
    });
    response.on("end", () => resolve(all));
  });
  assert.equal(text.match(/"finish_reason":"(length|stop)"/g)?.length, 16);
  assert.match(text, /data: \[DONE\]\n\n$/);
});

test("nothing is written to an ended event stream that is still being read", (context) => {
  context.mock.timers.enable({ apis: ["setInterval"] });
  // A network that accepts nothing.
  const network = new Writable({ write() {} });
  const faults: unknown[] = [];
  network.on("error", (error) => faults.push(error));
  const response = Object.assign(network, { setHeader() {}, writeHead() {} }) as unknown as ServerResponse;
  new EventStream(response, { seed: 1, steps: [] }, true, {});
  network.end();
  context.mock.timers.tick(60_000);
  return new Promise<void>((resolve) => {
    setImmediate(() => {
      assert.deepEqual(faults, []);
      resolve();
    });
  });
});

test("an upgrade of a route without WebSockets is answered and its connection closed", async () => {
  const { origin } = await listen(engine);
  for (const line of [
    "TRACE /healthz",
    "GET /nothing",
    "GET /healthz",
    "POST /generate",
    "OPTIONS /generate",
    "PUT /%ff",
  ]) {
    const socket = connect(Number(new URL(origin).port), "127.0.0.1");
    const ask = ["HTTP/1.1", "host: localhost", "connection: upgrade", "upgrade: websocket", "", ""].join(
      "\r\n",
    );
    socket.write(`${line} ${ask}`);
    let answer = "";
    for await (const chunk of socket.setEncoding("utf8")) answer += chunk;
    assert.match(answer, /^HTTP\/1\.1 [24]\d\d /, line);
  }
});
