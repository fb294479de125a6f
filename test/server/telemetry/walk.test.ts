/** Every route and every status of openapi.yaml occurs and fits its schema. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, test } from "node:test";
import type { FastifyInstance } from "fastify";
import { WebSocket } from "ws";
import { Engine } from "../../../src/engine/engine.ts";
import { ModelFailure } from "../../../src/errors.ts";
import type { AppOptions } from "../../../src/server/app.ts";
import { CONTRACT, type Schemas, validator } from "../../../src/server/openapi.ts";
import { makeChatModel } from "../../support/chat-model.ts";
import { LIMITS, startEngine } from "../../support/engine.ts";
import { scratch } from "../../support/scratch.ts";
import { TestKeys } from "../access/support.ts";
import { listen } from "../support.ts";

interface Media {
  schema?: { $ref?: string };
  example?: object;
}
interface Answer {
  $ref?: string;
  content?: Record<string, Media>;
  headers?: Record<string, unknown>;
}
interface Operation {
  parameters?: { in: string; content?: Record<string, Media> }[];
  requestBody?: { content: Record<string, Media> };
  responses: Record<string, Answer>;
}
interface Asked {
  /** A server in the state that gives the answer. */
  server: "ready" | "loading" | "full" | "failing" | "keyed";
  path: string;
  body?: string | undefined;
  headers: Record<string, string>;
}

const servers: Partial<Record<Asked["server"], { app: FastifyInstance; engine: Engine; origin: string }>> =
  {};
/** Keys of the server `keyed`; `poor` has a limit of one request a minute. */
let keys: TestKeys["keys"];
let blocker: { cancel: () => void };

/** A model that every route can use. */
const folder = scratch("walk");
await makeChatModel(folder);
{
  const add = async (name: Asked["server"], engine: Engine, access: AppOptions["access"] = {}) => {
    servers[name] = { engine, ...(await listen(engine, { access })) };
  };
  const ready = await startEngine({}, folder);
  await add("ready", ready);
  await add("loading", new Engine(ready.model, ready.pool, LIMITS));
  const made = await TestKeys.create({ rich: {}, poor: { requests_per_minute: 1 } });
  keys = made.keys;
  await add("keyed", ready, { keys: made.ring });
  const poor = { "x-api-key": keys.poor! };
  assert.equal((await servers.keyed!.app.inject({ url: "/model", headers: poor })).statusCode, 200);
  const full = await startEngine({ maxActive: 1, maxQueue: 0 }, folder);
  await add("full", full);
  full.pool.run = () => new Promise(() => {});
  blocker = full.submit({ prompt: "", length: 100, steps: 100 });
  const failing = await startEngine({}, folder);
  failing.pool.run = () => Promise.reject(new ModelFailure("as a graph that cannot run"));
  await add("failing", failing);
}
after(() => blocker.cancel());

/** Version of the model in the Open Inference Protocol. */
const MODEL_VERSION = "1";
/** Outputs of the Open Inference Protocol that follow the JSON as bytes. */
const BINARY_OUTPUT = [{ name: "text_output", parameters: { binary_data: true } }];

/** Return the request that gives this status, from the example of the route. */
function askFor(status: string, path: string, operation: Operation, accept: string): Asked | undefined {
  const name = servers.ready!.engine.model.manifest.name;
  const example = operation.requestBody?.content["application/json"]?.example;
  const short = example && { ...example, ...("model" in example && { model: name }) };
  const inUrl = operation.parameters?.find((one) => one.in === "query")?.content?.["application/json"]
    ?.example;
  const withQuery = (fields: object) => `${path}?request=${encodeURIComponent(JSON.stringify(fields))}`;
  const asked: Asked = {
    server: "ready",
    path: inUrl ? withQuery(inUrl) : path.replace("{model}", name).replace("{version}", MODEL_VERSION),
    headers: { accept, ...(short && { "content-type": "application/json" }) },
    ...(short && { body: JSON.stringify(short) }),
  };
  switch (status) {
    case "200":
      return asked;
    case "400":
      // A request without a body can have a key in its URL.
      if (!short)
        return { ...asked, server: "keyed", path: `${asked.path}${inUrl ? "&" : "?"}api_key=${keys.rich}` };
      return { ...asked, body: JSON.stringify({ ...short, stpes: 8 }) };
    case "401":
      return { ...asked, server: "keyed" };
    case "404": {
      if (inUrl) return { ...asked, path: withQuery({ ...inUrl, model: "nobody" }) };
      const named = path.includes("{model}") ? asked.path.replace(name, "nobody") : `${path}?model=nobody`;
      if (!short) return { ...asked, path: named };
      return {
        ...asked,
        path: path.includes("{model}") ? named : path,
        body: JSON.stringify(path.includes("{model}") ? short : { ...short, model: "nobody" }),
      };
    }
    case "413":
      if (inUrl) return { ...asked, path: withQuery({ prompt: "x ".repeat(2000) }) };
      return {
        ...asked,
        headers: { accept, "content-type": "application/json" },
        body: JSON.stringify({ ...short, padding: "x".repeat(2_000_000) }),
      };
    case "415":
      return { ...asked, headers: { accept, "content-type": "text/plain" } };
    case "431":
      return { ...asked, path: withQuery({ prompt: "x".repeat(20_000) }) };
    case "426":
      return asked;
    case "429":
      // Those that run no model.
      if (!short || path.endsWith("tokenize"))
        return { ...asked, server: "keyed", headers: { ...asked.headers, "x-api-key": keys.poor! } };
      return { ...asked, server: "full" };
    case "500":
      return { ...asked, server: "failing" };
    case "503":
      return { ...asked, server: "loading" };
  }
}

const resolve = (answer: Answer): Answer =>
  answer.$ref ? CONTRACT.components.responses[answer.$ref.split("/").at(-1)!] : answer;

for (const [path, route] of Object.entries(CONTRACT.paths as Record<string, Record<string, Operation>>))
  for (const method of ["get", "post"]) {
    const operation = route[method];
    if (!operation) continue;
    for (const [status, documented] of Object.entries(operation.responses)) {
      const { content = {}, headers = {} } = resolve(documented);
      for (const [type, media] of Object.entries(status === "403" ? {} : content))
        test(`${method.toUpperCase()} ${path} answers ${status} as ${type}`, async () => {
          const asked = askFor(status, path, operation, type);
          assert.ok(asked, `no way to provoke ${status} is known here: add one`);
          const streams = type === "text/event-stream";
          if (streams && path.startsWith("/v1"))
            asked.body = JSON.stringify({ ...JSON.parse(asked.body!), stream: true });
          if (type === "application/octet-stream")
            asked.body = JSON.stringify({ ...JSON.parse(asked.body!), outputs: BINARY_OUTPUT });
          const { origin } = servers[asked.server]!;
          const response = await fetch(origin + asked.path, {
            method: method.toUpperCase(),
            headers: asked.headers,
            body: asked.body ?? null,
          });
          assert.equal(String(response.status), status);
          for (const name of Object.keys(headers))
            if (name !== "Retry-After") assert.ok(response.headers.get(name), name);
          assert.equal(response.headers.get("content-type")!.split(";")[0], type);
          if ("Retry-After" in headers && ["429", "503"].includes(status))
            assert.match(response.headers.get("retry-after")!, /^[1-9]\d*$/);
          const text = await response.text();
          assert.notEqual(text, "");
          const schema = media.schema?.$ref?.split("/").at(-1) as keyof Schemas | undefined;
          if (!schema) return;
          const body = JSON.parse(text);
          assert.deepEqual(validator(schema)(structuredClone(body)), { value: body });
        });
      if (status === "403")
        test(`${method.toUpperCase()} ${path} answers 403 to a page of another origin`, async () => {
          const headers = { origin: "https://evil.example" };
          const socket = new WebSocket(servers.ready!.origin.replace("http", "ws") + path, { headers });
          const [, response] = await once(socket, "unexpected-response");
          assert.equal(response.statusCode, 403);
          assert.match(response.headers["content-type"], /^application\/problem\+json/);
          response.destroy();
        });
      if (status === "101")
        test(`${method.toUpperCase()} ${path} opens a socket`, async () => {
          const socket = new WebSocket(servers.ready!.origin.replace("http", "ws") + path);
          await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
          socket.terminate();
        });
      else if (status !== "204")
        test(`${method.toUpperCase()} ${path} documents the content of ${status}`, () =>
          assert.notDeepEqual(content, {}));
    }
  }
