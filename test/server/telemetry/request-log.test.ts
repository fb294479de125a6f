/** One log line for each request and each message of a socket, without prompts and texts. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { Writable } from "node:stream";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { TINY_GUIDED } from "../../support/engine.ts";
import { post } from "../../support/http.ts";
import { StreamClient, serve } from "../support.ts";

/** A line of the log. */
type Line = Record<string, unknown> & { msg: string; status?: number; passes?: Record<string, number> };

const SECRET = "xyzzy";
const lines: Line[] = [];
let raw = "";
const stream = new Writable({
  write(chunk, _encoding, done) {
    raw += chunk;
    for (const line of String(chunk).trim().split("\n")) lines.push(JSON.parse(line));
    done();
  },
});

const { engine, origin } = await serve({ cache: { maxBytes: 1e6, ttlMs: 60_000 } }, TINY_GUIDED, {
  logger: { level: "info", stream },
});

/** Return the lines of the requests that `act` sends, once there are `count`, and a moment later. */
async function linesOf(count: number, act: () => Promise<unknown>): Promise<Line[]> {
  lines.length = 0;
  await act();
  const ours = () => lines.filter(({ msg }) => msg === "request" || msg === "message");
  while (ours().length < count) await sleep(5);
  await sleep(30);
  assert.equal(ours().length, count, JSON.stringify(ours()));
  return ours();
}

const send = (path: string, body: object | string, headers?: Record<string, string>) =>
  post(origin + path, body, headers);

const REQUEST = { prompt: SECRET, length: 12, steps: 4, seed: 3 };

test("an answer has one line with its figures", async () => {
  let answer: { id: string; usage: { student_passes: number } } | undefined;
  const [line] = await linesOf(1, async () => {
    const guidance = { mode: "rgas", rerank_ratio: 0.5 };
    answer = (await (await send("/generate", { ...REQUEST, n: 2, guidance })).json()) as typeof answer;
  });
  assert.equal(line!.id, answer!.id);
  assert.equal(line!.msg, "request");
  assert.match(String(line!.reqId), /^[0-9a-f-]{36}$/);
  const { method, route, path, status, steps, tokens, finish_reason, cache } = line!;
  assert.deepEqual(
    { method, route, path, status, steps, tokens, cache },
    {
      method: "POST",
      route: "/generate",
      path: "/generate",
      status: 200,
      steps: 4,
      tokens: 24,
      cache: "miss",
    },
  );
  assert.match(String(finish_reason), /^(length|stop|length,stop)$/);
  assert.equal(line!.passes!.student, answer!.usage.student_passes);
  assert.ok(line!.passes!.gradient! > 0);
  for (const time of ["queue_ms", "compute_ms", "total_ms"]) assert.ok(Number(line![time]) >= 0, time);
  assert.ok(Number(line!.total_ms) >= Number(line!.queue_ms));
});

test("a refused request has one line with the reason, in every layer", async () => {
  const refusals: [() => Promise<unknown>, number, string, string][] = [
    [() => send("/generate", { ...REQUEST, steps: 0 }), 400, "invalid-request", "/generate"],
    [() => send("/generate", `{"prompt": "${SECRET}`), 400, "invalid-json", "/generate"],
    [() => send(`/nowhere?prompt=${SECRET}`, {}), 404, "not-found", "none"],
    [() => fetch(`${origin}/v1/completions`), 405, "method-not-allowed", "none"],
    [() => fetch(`${origin}/v1/models/%zz`), 400, "invalid-request", "none"],
    [() => send("/v1/completions", { model: "other", prompt: "" }), 404, "not-found", "/v1/completions"],
  ];
  for (const [act, status, problem, route] of refusals) {
    const [line] = await linesOf(1, act);
    assert.deepEqual([line!.status, line!.problem, line!.route], [status, problem, route]);
  }
});

test("an event stream, completions of several prompts and inference have one line each", async () => {
  const read = async (answer: Promise<Response>) => (await answer).text();
  const [events] = await linesOf(1, () => read(send("/generate", REQUEST, { accept: "text/event-stream" })));
  assert.deepEqual([events!.status, events!.tokens, events!.steps], [200, 12, 4]);
  const { name } = engine.model.manifest;
  const [completion] = await linesOf(1, () =>
    read(send("/v1/completions", { model: name, prompt: [SECRET, ""], max_tokens: 12, seed: 1 })),
  );
  assert.deepEqual([completion!.status, completion!.tokens], [200, 24]);
  assert.equal(String(completion!.id).split(",").length, 2);
  const inputs = [{ name: "text_input", datatype: "BYTES", shape: [1], data: [SECRET] }];
  const [inference] = await linesOf(1, () =>
    read(send(`/v2/models/${name}/infer`, { inputs, parameters: { length: 12 } })),
  );
  assert.deepEqual(
    [inference!.status, inference!.tokens, inference!.route],
    [200, 12, "/v2/models/:model/infer"],
  );
});

test("a client that disconnects has a line too", async () => {
  for (const accept of ["application/json", "text/event-stream"]) {
    const [line] = await linesOf(1, async () => {
      const socket = connect(Number(new URL(origin).port), "127.0.0.1");
      const body = JSON.stringify({ ...REQUEST, seed: undefined, steps: 1000, n: 16 });
      socket.write(
        `POST /generate HTTP/1.1\r\nhost: x\r\naccept: ${accept}\r\n` +
          `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      );
      while (engine.activeRows === 0) await sleep(1);
      socket.destroy();
      await once(socket, "close");
    });
    assert.deepEqual([line!.status, line!.problem], [499, "cancelled"], accept);
    assert.ok(line!.id);
  }
});

test("a socket has a line for each request and each refused message, and one when it closes", async () => {
  const written = await linesOf(4, async () => {
    const client = await StreamClient.connect(origin);
    client.send({ type: "generate", id: "a", ...REQUEST });
    await client.end("a");
    client.send({ type: "generate", id: "b", ...REQUEST, steps: 0 });
    await client.end("b");
    client.send("{");
    await client.find((event): event is typeof event => event.type === "error" && !("id" in event));
    client.socket.close();
    await client.closed;
  });
  assert.deepEqual(
    written.map(({ msg, status, problem }) => [msg, status, problem]),
    [
      ["message", 200, undefined],
      ["message", 400, "invalid-request"],
      ["message", 400, "invalid-json"],
      ["request", 101, undefined],
    ],
  );
  assert.equal(written[0]!.tokens, 12);
  assert.equal(new Set(written.map(({ reqId }) => reqId)).size, 1);
});

test("no line holds a prompt or a text", () => {
  assert.ok(raw.length > 2000);
  assert.ok(!raw.includes(SECRET));
});
