import assert from "node:assert/strict";
import { test } from "node:test";
import { prettyLine } from "../../src/cli/output/pretty-line.ts";

/** 02:03:42 on this machine's clock. */
const time = new Date(2026, 10, 29, 2, 3, 42).getTime();
const line = (fields: object) =>
  `${JSON.stringify({ level: 30, time, pid: 1, hostname: "vm", ...fields })}\n`;

const LINES: [name: string, fields: object, shown: string][] = [
  [
    "a request",
    { method: "POST", path: "/generate", status: 200, total_ms: 120.7, steps: 16, msg: "request" },
    "02:03:42 POST /generate 200 121 ms 16 steps\n",
  ],
  [
    "a request that was refused",
    { method: "POST", path: "/generate", status: 400, problem: "invalid-request", key: "alice", total_ms: 1 },
    "02:03:42 POST /generate 400 1 ms invalid-request key alice\n",
  ],
  [
    "a request of many seconds, from the cache",
    { method: "GET", path: "/a", status: 200, total_ms: 61_234, steps: 4, cache: "hit" },
    "02:03:42 GET /a 200 61.2 s 4 steps cached\n",
  ],
  ["a message", { msg: "stopped" }, "02:03:42 stopped\n"],
  ["a warning", { level: 40, msg: "worker replaced" }, "02:03:42 warning: worker replaced\n"],
  [
    "an error with its stack",
    { level: 50, msg: "a bug", err: { type: "Error", stack: "Error: x\n    at y" } },
    "02:03:42 error: a bug\nError: x\n    at y\n",
  ],
];

for (const [name, fields, shown] of LINES)
  test(`${name} in the log of a terminal`, () => assert.equal(prettyLine(line(fields)), shown));

test("a line that is not JSON is shown as it is", () => assert.equal(prettyLine("plain\n"), "plain\n"));
