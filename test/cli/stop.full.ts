/** Shutdown: accepted requests finish, no client delays it, and a second signal ends it. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { connect } from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { childrenOf } from "../../loadtest/servers/processes.ts";
import { scrape } from "../../loadtest/servers/server.ts";
import { postRaw, type ServerEvent, StreamClient } from "../server/support.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { MASK, PLAIN } from "../support/models.ts";
import { startServer } from "../support/server.ts";
import { answers } from "../support/until.ts";

const FLAGS = ["--device", "cpu", "--model", TINY_GUIDED, "--log-level", "error"];
const LONG = { prompt: "", length: 120, steps: 1024, n: 16, seed: 1 };
/** The largest allowed trace: its answer has 0.7 MB. */
const TRACED = { ...LONG, length: 64, n: 4, trace: true };
const isStep = (event: ServerEvent): event is Extract<ServerEvent, { type: "step" }> => event.type === "step";

async function textOf(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) text += chunk;
  return text;
}

test("after SIGTERM it refuses requests, finishes running ones, then closes sockets with 1001", async () => {
  const { child, origin, exit } = await startServer([...FLAGS]);
  const client = await StreamClient.connect(origin);
  const posted = postRaw(origin, "/generate", { ...LONG, seed: 2 });
  while (!((await scrape(origin)).get("didi_active_rows")! > 0)) await sleep(5);
  client.send({ type: "generate", id: "a", ...LONG });
  await client.find(isStep);
  child.kill("SIGTERM");
  let ready: Response;
  do ready = await fetch(`${origin}/readyz`);
  while (ready.status === 200);
  assert.equal(ready.status, 503);
  assert.ok(
    client.events.every(({ type }) => type !== "done"),
    "it was over before, so this test shows nothing",
  );
  const refused = await postRaw(origin, "/generate", { prompt: "", length: 2, steps: 1 });
  assert.equal(refused.statusCode, 503);
  assert.equal(refused.headers["retry-after"], "1");
  assert.equal(refused.headers.connection, "close");
  refused.resume();
  const answered = await posted;
  assert.equal(answered.statusCode, 200);
  assert.equal(JSON.parse(await textOf(answered)).samples.length, 16);
  assert.equal((await client.end("a")).type, "done");
  assert.equal(await client.closed, 1001);
  assert.equal(await exit, 0);
});

test("an answer that a client is still reading arrives whole", async () => {
  const { child, origin, exit } = await startServer([...FLAGS]);
  // About ten megabytes: more than the socket buffers hold.
  const response = await postRaw(origin, "/generate", LONG, { accept: "text/event-stream" });
  assert.equal(response.statusCode, 200);
  while (!/^didi_active_rows 0$/m.test(await (await fetch(`${origin}/metrics`)).text())) await sleep(50);
  child.kill("SIGTERM");
  while (await answers(`${origin}/readyz`));
  assert.equal(await Promise.race([exit, sleep(300, "waits")]), "waits");
  const events = (await textOf(response)).split("\n\n");
  assert.match(events.at(-2)!, /"type":"done"/);
  assert.equal(await exit, 0);
});

test("neither a client that never reads nor a silent socket delays the shutdown", async () => {
  const { child, origin, exit } = await startServer([...FLAGS, "--grace", "30"]);
  const client = await StreamClient.connect(origin);
  client.socket.pause();
  const never = await postRaw(origin, "/generate", TRACED);
  never.on("error", () => {});
  const half = connect(Number(new URL(origin).port), "127.0.0.1");
  half.on("error", () => {});
  half.write("POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{");
  await sleep(100);
  const started = performance.now();
  child.kill("SIGTERM");
  assert.equal(await exit, 0);
  assert.ok(performance.now() - started < 25_000);
  client.socket.terminate();
  never.destroy();
});

test("a second signal ends it at once, with exit code 1 and no process left", async () => {
  const { child, origin, exit } = await startServer([...FLAGS]);
  const client = await StreamClient.connect(origin);
  const pids = childrenOf(child.pid!);
  client.send({ type: "generate", id: "a", ...LONG });
  await client.find(isStep);
  // A frozen worker cannot notice that its server has ended.
  for (const pid of pids) process.kill(pid, "SIGSTOP");
  child.kill("SIGTERM");
  while (await fetch(`${origin}/readyz`).then(({ ok }) => ok));
  child.kill("SIGTERM");
  assert.equal(await exit, 1);
  assert.equal(await client.closed, 1006);
  for (let i = 0; i < 200 && pids.some((pid) => existsSync(`/proc/${pid}`)); i++) await sleep(10);
  assert.deepEqual(
    pids.filter((pid) => existsSync(`/proc/${pid}`)),
    [],
  );
});

test("SIGTERM waits for a request whose model is loaded for it", async () => {
  const flags = ["--model", PLAIN, "--model", MASK, "--max-loaded", "1", "--log-format", "json"];
  const { child, origin, exit, said, output } = await startServer(["--device", "cpu", ...flags]);
  assert.match(output(), /tiny-plain \(.+\) on cpu, tiny-mask on demand, ready/);
  const client = await StreamClient.connect(origin);
  const request = { type: "generate", prompt: "", length: 8, steps: 2 };
  client.send({ ...request, id: "a", model: "tiny-mask" });
  await said(/"msg":"model unloaded"/);
  child.kill("SIGTERM");
  const end = await client.end("a");
  assert.equal(end.type === "done" && end.model, "tiny-mask");
  assert.equal(await exit, 0);
  assert.match(output(), /"model":"tiny-mask","ms":\d+,"msg":"model loaded"/);
});
