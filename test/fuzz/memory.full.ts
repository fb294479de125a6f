/**
 * After thousands of concurrent invalid requests and frames, the server is ready and its memory has not
 * grown.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { Server } from "../../loadtest/servers/server.ts";
import { median } from "../../loadtest/traffic/statistics.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { rawFrames, rawRequest } from "./raw.ts";
import { send } from "./send.ts";

/** Concurrent cases, and rounds. */
const [SIDE_BY_SIDE, ROUNDS] = [32, 160];
/** Allowed growth of the median memory from the second to the last third. */
const FLAT = 1.1;

let server: Server;
before(async () => {
  // A small heap and a small cache: with the default, V8 keeps 130 MB of garbage, which would hide a leak.
  const limits = ["--threads", "1", "--max-batch-tokens", "4096", "--cache-mb", "4"];
  server = await Server.start(["--model", TINY_GUIDED, ...limits], { heapMb: 64 });
});
after(() => server.stop("SIGKILL"));

test("random bytes on many connections neither end the server nor increase its memory", async () => {
  const memory: number[] = [];
  const one = fc.oneof({ weight: 3, arbitrary: rawRequest }, { weight: 1, arbitrary: rawFrames });
  const outcome = await fc.check(
    fc.asyncProperty(fc.array(one, { minLength: SIDE_BY_SIDE, maxLength: SIDE_BY_SIDE }), async (cases) => {
      const replies = await Promise.all(cases.map((raw) => send(server.port, raw)));
      for (const [i, { statuses, hung }] of replies.entries()) {
        assert.equal(hung, false, `no answer: ${cases[i]!.bytes.toString("latin1").slice(0, 400)}`);
        // 503 is a refusal, 505 the answer to a version of HTTP that does not exist.
        for (const status of statuses)
          assert.ok(status < 500 || status === 503 || status === 505, `${status}`);
      }
      assert.ok(await server.ready(), server.errors.join());
      memory.push(server.memory().server);
    }),
    { seed: 20261125, numRuns: ROUNDS, endOnFailure: true },
  );
  // Do not print the values of a failing case, which are megabytes.
  if (outcome.failed) throw outcome.errorInstance;
  const third = (n: number) => memory.slice(((n - 1) * memory.length) / 3, (n * memory.length) / 3);
  const [settled, last] = [median(third(2)), median(third(3))];
  console.log(`${SIDE_BY_SIDE * ROUNDS} cases: ${settled.toFixed(0)} MB, then ${last.toFixed(0)} MB`);
  assert.ok(last <= FLAT * settled, `${settled} MB, then ${last} MB`);
  assert.equal((await server.stop()).code, 0);
});
