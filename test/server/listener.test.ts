/** Limits below the routes: sizes, times and numbers of connections; TLS. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { request as httpsRequest, type Server as TlsServer } from "node:https";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import type { TLSSocket } from "node:tls";
import { StartupError } from "../../src/errors.ts";
import { readTls } from "../../src/server/listener/tls.ts";
import { type Schemas, validator } from "../../src/server/openapi.ts";
import { startEngine, TINY_GUIDED } from "../support/engine.ts";
import { post } from "../support/http.ts";
import { certify } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";
import { until } from "../support/until.ts";
import { searchableLog } from "./access/support.ts";
import { connections, listen, StreamClient } from "./support.ts";

const engine = await startEngine({}, TINY_GUIDED);
const root = scratch("tls");

const checkProblem = validator("Problem");

/** All that comes back on a connection until it ends, the status, and the problem that it is. */
async function answerOn(socket: Socket) {
  const [head = "", body = ""] = (await text(socket)).split("\r\n\r\n");
  const problem = body === "" ? undefined : (JSON.parse(body) as Schemas["Problem"]);
  if (problem) assert.deepEqual(checkProblem(structuredClone(problem)), { value: problem });
  return { head, problem };
}

const open = (origin: string) => {
  const { hostname, port } = new URL(origin);
  return connect(Number(port), hostname)
    .on("error", () => {})
    .resume();
};

test("headers above the limit get 431 as a problem, and headers below it do not", async () => {
  const { origin } = await listen(engine, { listener: { maxHeaderBytes: 4096 } });
  assert.equal((await fetch(`${origin}/model`, { headers: { "x-long": "x".repeat(3000) } })).status, 200);
  const socket = open(origin);
  socket.write(`GET /model HTTP/1.1\r\nhost: a\r\nx-long: ${"x".repeat(5000)}\r\n\r\n`);
  const { head, problem } = await answerOn(socket);
  assert.match(head, /^HTTP\/1\.1 431 /);
  assert.match(head, /content-type: application\/problem\+json/);
  assert.equal(problem?.type, "urn:didi-serve:problem:headers-too-large");
  assert.ok(problem?.request_id && head.includes(`x-request-id: ${problem.request_id}`));
});

test("bytes that are not HTTP get 400 as a problem", async () => {
  const { origin } = await listen(engine, {});
  const socket = open(origin);
  socket.write("didi didi didi\r\n\r\n");
  assert.equal((await answerOn(socket)).problem?.status, 400);
});

test("bodies and WebSocket messages have separate limits", async () => {
  const { origin } = await listen(engine, { maxBodyBytes: 2048, maxMessageBytes: 4096 });
  const statusOf = async (size: number) =>
    (await post(`${origin}/generate`, { prompt: "a", stop: "x".repeat(size) })).status;
  assert.equal(await statusOf(3000), 413);
  assert.notEqual(await statusOf(1000), 413);
  const client = await StreamClient.connect(origin);
  client.send({ type: "cancel", id: "x".repeat(3000) });
  await client.find((event): event is Schemas["ErrorEvent"] => event.type === "error");
  client.send({ type: "cancel", id: "x".repeat(5000) });
  assert.equal(await client.closed, 1009);
});

test("a request whose headers or body arrive slowly gets 408 and its connection is closed", async () => {
  const { origin } = await listen(engine, { listener: { requestTimeoutMs: 300 } });
  const head =
    "POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n";
  for (const start of [head, `${head}\r\n{"prompt":`]) {
    const socket = open(origin);
    socket.write(start);
    const trickle = setInterval(() => socket.write("x"), 40);
    const { problem } = await answerOn(socket);
    clearInterval(trickle);
    assert.equal(problem?.type, "urn:didi-serve:problem:request-timeout");
  }
  // The limit is on the request, not on the answer.
  const answer = await post(`${origin}/generate`, { prompt: "a", length: 20, steps: 1024, n: 16 });
  assert.equal(answer.status, 200);
});

test("connections above the limit are closed with one warning, and the others stay open", async () => {
  const log = searchableLog();
  const { origin, app } = await listen(engine, { listener: { maxConnections: 3 }, logger: log.logger });
  const held = [open(origin), open(origin), open(origin)];
  await Promise.all(held.map((socket) => once(socket, "connect")));
  await until("three are open", async () => (await connections(app)) === 3);
  for (let i = 0; i < 5; i++) await once(open(origin), "close");
  assert.equal(log.text().split("3 connections are open").length - 1, 1);
  held[0]!.destroy();
  held[1]!.write("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
  await once(held[1]!, "close");
  assert.equal((await fetch(`${origin}/healthz`)).status, 200);
  held[2]!.destroy();
});

/** A request that offers h2c, as curl and Java's client do, and one after it on the same connection. */
function offer(line: string, body = ""): string {
  const length = body === "" ? "" : `content-type: application/json\r\ncontent-length: ${body.length}\r\n`;
  const first = `${line} HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n`;
  const next = "GET /model HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
  return `${first}http2-settings: AAMAAABkAARAAAAA\r\n${length}\r\n${body}${next}`;
}

test("an upgrade to another protocol is ignored, and answered over HTTP/1.1", async () => {
  const { origin } = await listen(engine, {});
  const body = JSON.stringify({ prompt: "a", length: 4, steps: 1, seed: 1 });
  for (const sent of [offer("GET /healthz"), offer("POST /generate", body), offer("GET /generate/stream")]) {
    const socket = open(origin);
    socket.write(sent);
    const answers = await text(socket);
    const statuses = [...answers.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status);
    assert.deepEqual(statuses, [sent.includes("stream") ? "426" : "200", "200"], answers);
  }
  // In pieces too, the body after the head.
  const socket = open(origin);
  const whole = offer("POST /generate", body);
  const at = whole.indexOf(body) + 3;
  socket.write(whole.slice(0, at));
  await new Promise((resolve) => setTimeout(resolve, 50));
  socket.write(whole.slice(at));
  assert.match(await text(socket), /^HTTP\/1\.1 200 [\s\S]*"samples"[\s\S]*HTTP\/1\.1 200 /);
});

const LONG = JSON.stringify({ prompt: "a", length: 20, steps: 1024, n: 16 });
const POST_LONG =
  "POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n" +
  `content-length: ${LONG.length}\r\n\r\n${LONG}`;

test("a client that closes its sending side after the request gets its answer", async () => {
  const { origin } = await listen(engine, {});
  for (const request of [
    "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /healthz HTTP/1.0\r\n\r\n",
    POST_LONG,
  ]) {
    const socket = connect({ port: Number(new URL(origin).port), host: "127.0.0.1", allowHalfOpen: true });
    socket.end(request);
    const answer = await text(socket);
    assert.match(answer, /^(HTTP\/1\.1 102 Processing\r\n\r\n)*HTTP\/1\.1 200 /, answer.slice(0, 200));
    assert.match(answer, /"(status|samples)"/);
  }
});

test("a client that is gone is distinguished from a half-closed one, and its rows are freed", async () => {
  const { origin } = await listen(engine, {});
  let cancelled = 0;
  const onFinished = ({ outcome }: { outcome: string }) => {
    if (outcome === "cancelled") cancelled++;
  };
  engine.on("finished", onFinished);
  // Hundreds of steps, which take longer than the detection.
  const body = JSON.stringify({ prompt: "a", length: 100, steps: 1024, n: 16 });
  for (let i = 0; i < 8; i++) {
    const socket = open(origin);
    const headers = `content-type: application/json\r\ncontent-length: ${body.length}`;
    socket.write(`POST /generate HTTP/1.1\r\nhost: a\r\n${headers}\r\n\r\n${body}`);
    await until("the request is in", () => engine.activeRows + engine.queueLength > i);
    socket.destroy();
  }
  await until("all are gone", () => engine.activeRows + engine.queueLength === 0);
  engine.off("finished", onFinished);
  assert.ok(cancelled > 0, "all were computed though nobody waited");
});

/** A certificate of its own name, and its key. */
function certified(name: string): { cert: string; key: string } {
  const [cert, key] = [join(root, `${name}.pem`), join(root, `${name}.key`)];
  certify(name, cert, key);
  return { cert, key };
}

/** The name on the certificate that a server shows, and the status of its answer. */
function ask(origin: string, options: object = {}): Promise<{ name: string; status: number; sts: unknown }> {
  return new Promise((resolve, reject) => {
    httpsRequest(`${origin}/healthz`, { rejectUnauthorized: false, agent: false, ...options }, (response) => {
      const name = String((response.socket as TLSSocket).getPeerCertificate().subject.CN);
      response.resume();
      const sts = response.headers["strict-transport-security"];
      response.once("end", () => resolve({ name, status: response.statusCode!, sts }));
    })
      .once("error", reject)
      .end();
  });
}

test("TLS serves HTTP and WebSockets from version 1.2 on, and its files can be replaced", async () => {
  const [first, second] = [certified("first"), certified("second")];
  const tls = await readTls(first.cert, first.key);
  const { app, origin } = await listen(engine, { listener: { tls } });
  assert.match(origin, /^https:/);
  const answer = await ask(origin);
  assert.deepEqual([answer.name, answer.status], ["first", 200]);
  assert.match(String(answer.sts), /max-age=\d+$/);
  await assert.rejects(ask(origin, { maxVersion: "TLSv1.1", minVersion: "TLSv1" }));
  const client = await StreamClient.connect(origin, { rejectUnauthorized: false });
  client.send({ type: "generate", id: "a", prompt: "a", length: 4, steps: 1 });
  assert.equal((await client.end("a")).type, "done");
  (app.server as TlsServer).setSecureContext({ ...(await readTls(second.cert, second.key)) });
  assert.equal((await ask(origin)).name, "second");
  client.send({ type: "generate", id: "b", prompt: "a", length: 4, steps: 1 });
  assert.equal((await client.end("b")).type, "done");
  client.socket.close();
  const plain = await fetch(origin.replace("https", "http"));
  assert.equal(plain.status, 400);
  const { detail } = (await plain.json()) as Schemas["Problem"];
  assert.match(detail ?? "", /HTTPS/);
});

test("an error names files that are not a certificate and its key", async () => {
  const [first, second] = [certified("one"), certified("two")];
  const junk = join(root, "junk.pem");
  await writeFile(junk, "junk");
  for (const [cert, key, says] of [
    [first.cert, second.key, /one\.pem and .*two\.key are not a certificate and its key/],
    [junk, first.key, /junk\.pem and/],
    [first.cert, "/nowhere.key", /cannot read \/nowhere\.key of --tls-key: ENOENT/],
  ] as const)
    await assert.rejects(
      readTls(cert, key),
      (error) => error instanceof StartupError && says.test(error.message) && !/\n/.test(error.message),
    );
});
