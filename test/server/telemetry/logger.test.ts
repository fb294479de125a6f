/** Redaction of the log, and request ids. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { ModelFailure } from "../../../src/errors.ts";
import type { Schemas } from "../../../src/server/openapi.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";
import { post } from "../../support/http.ts";
import { searchableLog, TestKeys } from "../access/support.ts";
import { listen, StreamClient } from "../support.ts";

const engine = await startEngine({}, TINY_GUIDED);
const keys = await TestKeys.create({ alice: {} });

const SECRET = "sesame-of-the-prompt";

/** Return a text with every byte percent-encoded. */
const percent = (text: string) =>
  Array.from(Buffer.from(text), (byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");

/** Send valid and invalid requests with a secret text in each; return the log and the generated texts. */
async function everything(logPrompts: boolean) {
  const log = searchableLog();
  const { origin } = await listen(engine, {
    logger: log.logger,
    logPrompts,
    access: { keys: keys.ring },
  });
  const key = keys.keys.alice!;
  const texts: string[] = [];
  const send = (path: string, body: object | string, headers: Record<string, string> = {}) =>
    post(`${origin}${path}`, body, { authorization: `Bearer ${key}`, ...headers });
  const request = { prompt: SECRET, length: 8, steps: 2, seed: 3 };
  const model = engine.model.manifest.name;
  const good = (await (await send("/generate", request)).json()) as Schemas["GenerateResponse"];
  texts.push(...good.samples.map(({ text }) => text));
  await (await send("/generate", request, { accept: "text/event-stream" })).text();
  const url = `${origin}/generate?request=${encodeURIComponent(JSON.stringify(request))}`;
  await (await fetch(url, { headers: { authorization: `Bearer ${key}` } })).text();
  await send("/v1/completions", { model, prompt: SECRET, max_tokens: 4 });
  const chosen = await send("/generate", { template: `${SECRET} {{choice:a|b}}`, steps: 1 });
  assert.equal(chosen.status, 200, await chosen.text());
  const inputs = [{ name: "text_input", shape: [1], datatype: "BYTES", data: [SECRET] }];
  await send(`/v2/models/${model}/infer`, { inputs });
  for (const [path, body] of [
    ["/generate", `{"prompt": "${SECRET}`],
    ["/generate", { ...request, steps: SECRET }],
    ["/generate", { ...request, [SECRET]: 1 }],
    ["/generate", { prompt: SECRET.repeat(50_000) }],
    ["/v1/completions", { model: SECRET, prompt: "" }],
    [`/generate?prompt=${SECRET}&api_key=${key}`, "{}"],
    [`/generate/${key}`, "{}"],
    [`/generate/${percent(key)}`, "{}"],
    [`/generate/${percent(percent(key))}`, "{}"],
    [`/generate/${key.replace("_", "%5f")}%ff%zz`, "{}"],
  ] as const)
    await (await send(path, body)).text();
  await fetch(`${origin}/model`, { headers: { authorization: `Bearer ${key.slice(0, -1)}x` } });
  const named = await fetch(`${origin}/healthz`, { headers: { "x-request-id": `my-${key}` } });
  assert.match(named.headers.get("x-request-id")!, /^[0-9a-f-]{36}$/);

  // A bug and a model failure, with the prompt in the error.
  const { start } = engine;
  for (const error of [
    Object.assign(new Error(`cannot read ${key}`), { prompt: SECRET, request }),
    new ModelFailure("the graph has no such input"),
  ]) {
    engine.start = () => {
      throw error;
    };
    const failed = await send("/generate", request);
    assert.equal(failed.status, 500);
    assert.doesNotMatch(await failed.text(), /cannot read|graph/);
  }
  engine.start = start;

  const client = await StreamClient.connect(origin);
  client.send({ type: "auth", key });
  client.send({ type: "generate", id: "a", ...request });
  await client.end("a");
  client.send(`{"type": "generate", "prompt": "${SECRET}`);
  client.send({ type: "generate", id: "b", ...request, steps: 0 });
  await client.end("b");
  client.socket.close();
  await client.closed;
  const unauthenticated = await StreamClient.connect(origin);
  unauthenticated.send({ type: "auth", key: `${key}x`, prompt: SECRET });
  await unauthenticated.closed;
  return { log: log.text(), texts, key };
}

/** Return a text with all levels of percent-encoding decoded. */
function unescaped(text: string): string {
  const once = text.replace(/%([0-9a-f]{2})/gi, (_, code) => String.fromCharCode(parseInt(code, 16)));
  return once === text ? once : unescaped(once);
}

test("the log holds no prompt, no text and no key, also after errors", async () => {
  const { log, texts, key } = await everything(false);
  assert.ok(log.split("\n").length > 15, "there is hardly any log, so this test shows nothing");
  assert.ok(log.includes("didi_…"), "no error named a key, so this test shows nothing");
  for (const text of [SECRET, ...texts, key, key.slice(-43, -1)]) assert.ok(!log.includes(text), text);
  assert.ok(!unescaped(log).includes(key.slice(-43, -1)));
  assert.match(log, /"path":"\/generate","status":200,[^\n]*"key":"alice"/);
});

test("with logPrompts the log holds prompts and texts, but no key", async () => {
  const { log, texts, key } = await everything(true);
  for (const text of [SECRET, JSON.stringify(texts[0]).slice(1, -1)]) assert.ok(log.includes(text), text);
  // Of scored tokens, not a canvas for each.
  assert.ok(log.includes('"scored":[') && !log.includes('"canvas":'));
  assert.ok(!log.includes(key.slice(-43, -1)));
});

test("every answer has a request id, the client's own if it is safe, and the log has the same", async () => {
  const log = searchableLog();
  const { origin } = await listen(engine, { logger: log.logger });
  const idOf = async (path: string, given?: string) => {
    const response = await fetch(
      `${origin}${path}`,
      given === undefined ? {} : { headers: { "x-request-id": given } },
    );
    await response.text();
    return response.headers.get("x-request-id")!;
  };
  const uuid = /^[0-9a-f-]{36}$/;
  for (const path of ["/", "/healthz", "/model", "/nothing", "/%zz", "/v1/nothing", "/docs"]) {
    assert.match(await idOf(path), uuid, path);
    assert.equal(await idOf(path, "trace-1:a/b=c"), "trace-1:a/b=c", path);
  }
  assert.equal(log.text().split('"reqId":"trace-1:a/b=c"').length - 1 >= 6, true);
  // The last id looks like an API key.
  const key = `didi_alice_${"A".repeat(43)}`;
  for (const given of ["", "a b", '"}{"', "x".repeat(129), "é", key, `trace-${key}`])
    assert.match(await idOf("/healthz", given), uuid);

  const refused = await fetch(`${origin}/nothing`, { headers: { "x-request-id": "mine" } });
  assert.equal(((await refused.json()) as Schemas["Problem"]).request_id, "mine");
  const asked = { prompt: "", length: 4, steps: 1 };
  const named = { accept: "text/event-stream", "x-request-id": "mine" };
  const stream = await post(`${origin}/generate`, asked, named);
  await stream.text();
  assert.equal(stream.headers.get("x-request-id"), "mine");

  const client = await StreamClient.connect(origin, { headers: { "x-request-id": "socket-1" } });
  client.send("{}");
  const { error } = await client.find((event): event is Schemas["ErrorEvent"] => event.type === "error");
  assert.equal(error.request_id, "socket-1");
  client.socket.close();
});
