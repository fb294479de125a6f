/** Retries of the client, against scripted servers. */

import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { test } from "node:test";
import { type ClientOptions, DidiClient, DidiError } from "../../src/client/index.ts";
import { scripted } from "./support.ts";

const quick: ClientOptions = { retry: { retries: 3, firstMs: 1, longestMs: 4, patienceMs: 1500 } };
const PROBLEM = { type: "urn:didi-serve:problem:overloaded", title: "Too many", status: 429, detail: "wait" };

const json = (response: ServerResponse, status: number, body: unknown, headers = {}) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
const ok = (response: ServerResponse) => json(response, 200, { id: "a" });

async function failure(call: Promise<unknown>): Promise<DidiError> {
  const error = await call.then(
    () => assert.fail("it was answered"),
    (error) => error,
  );
  assert.ok(error instanceof DidiError, String(error));
  return error;
}

for (const status of [429, 502, 503, 504])
  test(`${status} is retried with back-off`, async () => {
    const server = await scripted((response) => json(response, status, "no"), ok);
    assert.deepEqual(await new DidiClient(server.origin, quick).generate({ prompt: "a" }), { id: "a" });
    assert.equal(server.requests.length, 2);
    await server.close();
  });

test("other statuses and answers of other programs are final, and the error gives advice", async () => {
  const cases: [(response: ServerResponse) => unknown, number | undefined, RegExp][] = [
    [(response) => json(response, 500, { ...PROBLEM, status: 500 }), 500, /Too many \(500\): wait/],
    [(response) => json(response, 404, "gone"), 404, /status 404 without a problem object/],
    [(response) => response.end("<html>"), undefined, /is not JSON/],
  ];
  for (const [answer, status, says] of cases) {
    const server = await scripted(answer);
    const error = await failure(new DidiClient(server.origin, quick).generate({ prompt: "a" }));
    assert.deepEqual([error.status, error.retryable, server.requests.length], [status, false, 1]);
    assert.match(error.message, says);
    await server.close();
  }
});

test("the number of retries is bounded", async () => {
  const server = await scripted((response) => json(response, 503, { ...PROBLEM, status: 503 }));
  const error = await failure(new DidiClient(server.origin, quick).generate({ prompt: "a" }));
  assert.deepEqual([error.status, error.problem?.detail, server.requests.length], [503, "wait", 4]);
  await server.close();
  const gone = await failure(new DidiClient(server.origin, quick).generate({ prompt: "a" }));
  assert.deepEqual([gone.status, gone.retryable], [undefined, true]);
  assert.match(
    gone.message,
    /cannot reach http:\/\/127\.0\.0\.1:\d+\/generate: check that the server is running/,
  );
  assert.ok(gone.cause);
});

test("Retry-After is read as seconds, a date or from the problem; too long a wait is an error", async () => {
  const cases: [headers: Record<string, string>, body: object, atLeastMs: number][] = [
    [{ "retry-after": "1" }, {}, 1000],
    // A date has whole seconds.
    [{ "retry-after": new Date(Math.ceil(Date.now() / 1000) * 1000 + 1000).toUTCString() }, {}, 900],
    [{}, { retry_after: 1 }, 1000],
  ];
  await Promise.all(
    cases.map(async ([headers, body, atLeastMs]) => {
      const server = await scripted((response) => json(response, 429, { ...PROBLEM, ...body }, headers), ok);
      const started = performance.now();
      const patient = { retry: { ...quick.retry, patienceMs: 3000 } };
      await new DidiClient(server.origin, patient).generate({ prompt: "a" });
      const waited = performance.now() - started;
      assert.ok(waited >= atLeastMs && waited < atLeastMs + 2500, `${waited} ms, not ${atLeastMs}`);
      await server.close();
    }),
  );
  const server = await scripted((response) => json(response, 429, PROBLEM, { "retry-after": "2" }));
  const error = await failure(new DidiClient(server.origin, quick).generate({ prompt: "a" }));
  assert.deepEqual([error.retryAfterMs, server.requests.length], [2000, 1]);
  await server.close();
});

test("a request whose answer breaks off is retried", async () => {
  const server = await scripted((response) => {
    response.writeHead(200, { "content-length": "100" }).write("{");
    setTimeout(() => response.destroy(), 20);
  }, ok);
  assert.deepEqual(await new DidiClient(server.origin, quick).generate({ prompt: "a" }), { id: "a" });
  await server.close();
});

test("an error event of a bug is thrown at once", async () => {
  const event = { type: "error", error: { ...PROBLEM, status: 500, request_id: "r1" } };
  const server = await scripted((response) =>
    response
      .writeHead(200, { "content-type": "text/event-stream" })
      .end(`data: ${JSON.stringify(event)}\n\n`),
  );
  const error = await failure(new DidiClient(server.origin, quick).stream({ prompt: "a" }).next());
  assert.deepEqual([error.status, error.requestId, server.requests.length], [500, "r1", 1]);
  await server.close();
});

test("extra headers are sent, and a path prefix of the base URL is kept", async () => {
  const server = await scripted(ok);
  const client = new DidiClient(`${server.origin}/models/a`, { headers: { authorization: "Bearer x" } });
  await client.generate({ prompt: "a" });
  const [request] = server.requests;
  assert.deepEqual([request!.url, request!.headers.authorization], ["/models/a/generate", "Bearer x"]);
  assert.throws(() => new DidiClient("not an address"), TypeError);
  await server.close();
});
