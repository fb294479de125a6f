/** For any bytes on a connection, the server answers with a status below 500 or closes it, and goes on. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { serve } from "../server/support.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { rawFrames, rawRequest } from "./raw.ts";
import { send } from "./send.ts";
import { FEW_RUNS } from "./support.ts";

const { origin } = await serve({}, TINY_GUIDED);

for (const [name, cases, expected] of [
  ["an HTTP request", rawRequest, [200, 400, 404, 405]],
  ["WebSocket frames", rawFrames, [400]],
] as const)
  test(`${name} of any bytes is answered without a server error`, async () => {
    const seen = new Set<number>();
    await fc.assert(
      fc.asyncProperty(cases, async (raw) => {
        const { statuses, hung } = await send(Number(new URL(origin).port), raw);
        assert.equal(hung, false);
        for (const status of statuses) {
          seen.add(status);
          // 505 is the answer to a version of HTTP that does not exist.
          assert.ok(status < 500 || status === 505, `status ${status}`);
        }
      }),
      FEW_RUNS,
    );
    assert.equal((await fetch(`${origin}/readyz`)).status, 200);
    for (const status of expected) assert.ok(seen.has(status), `no answer was ${status}`);
  });
