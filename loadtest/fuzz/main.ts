/** `npm run fuzz`: what no client should send, a hundred thousand times. */

import { parseArgs } from "node:util";
import { TINY_GUIDED } from "../../test/support.ts";
import { machine } from "../bench/machine.ts";
import { progress, publish } from "../report/checks.ts";
import { StrainedServer } from "../servers/strained.ts";
import { Random } from "../traffic/random.ts";
import { frameCase } from "./frames.ts";
import { checksOf, type Fault, KINDS, markdownOf, type Run } from "./report.ts";
import { requestCase } from "./requests.ts";
import { Sender } from "./send.ts";

const { values: flags } = parseArgs({
  options: {
    cases: { type: "string", default: "100000" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
    side: { type: "string", default: "32" },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run fuzz -- [flags]
  --cases <n>     (default 100000)
  --seed <n>      of all cases (default 1)
  --only <n>      sends one case alone, and shows what comes back
  --side <n>      cases side by side (default 32)
  --out <folder>  where fuzz.md and fuzz.json go (default: printed only)
Ctrl-C ends it and reports what there was.`);
  process.exit(0);
}
const seed = Number(flags.seed);
const total = Number(flags.cases);
// What is tried is the face: a small model of random weights answers quickest, and a small cache is full soon. About 40 MB
// of its heap live; left to itself, V8 puts up to 130 MB of garbage on top before it collects, and memory goes up and down
// by that, whatever leaks.
const server = await StrainedServer.start(
  ["--model", TINY_GUIDED, "--threads", "1", "--max-batch-tokens", "4096", "--cache-mb", "4"],
  { heapMb: 64 },
);

async function runCase(index: number, sender: Sender) {
  const random = new Random(seed, index);
  const isSocket = random.chance(0.25);
  const test = isSocket ? frameCase(random) : requestCase(random);
  const started = performance.now();
  const reply = "whole" in test ? await sender.request(test) : await sender.frames(test);
  return {
    kind: "whole" in test ? test.kind : ("frames" as const),
    bytes: test.bytes,
    reply,
    ms: performance.now() - started,
  };
}

if (flags.only !== undefined) {
  const { kind, bytes, reply } = await runCase(Number(flags.only), new Sender(server.port));
  console.log("%s, %d bytes:\n%s\n\n", kind, bytes.length, bytes.subarray(0, 2000).toString("latin1"), reply);
  await server.stop();
  process.exit(0);
}

let interrupted = false;
process.on("SIGINT", () => {
  if (interrupted) process.exit(130);
  interrupted = true;
});
const run: Run = {
  machine: machine("tiny-guided"),
  seed,
  cases: 0,
  seconds: 0,
  interrupted,
  statuses: Object.fromEntries(KINDS.map((kind) => [kind, {}])) as Run["statuses"],
  faults: [],
  slowestMs: 0,
  memory: [],
  unready: 0,
  alive: true,
  ready: false,
  ending: undefined,
  complaints: [],
};
const say = progress();
const started = performance.now();
let next = 0;

async function lane(): Promise<void> {
  const sender = new Sender(server.port);
  while (next < total && !interrupted && server.alive && run.faults.length < 50) {
    const index = next++;
    if (index % Math.ceil(total / 50) === 0) {
      if (!(await server.ready())) run.unready++;
      run.memory.push({ cases: index, ...server.memory() });
    }
    try {
      const { kind, bytes, reply, ms } = await runCase(index, sender);
      run.cases++;
      run.slowestMs = Math.max(run.slowestMs, ms);
      const name = reply.statuses.join("+") || (reply.hung ? "hung" : "closed");
      const counts = run.statuses[kind];
      counts[name] = (counts[name] ?? 0) + 1;
      const broken = reply.statuses.find((status) => status >= 500 && status !== 503 && status !== 505);
      const why = reply.hung ? "hung" : broken === undefined ? undefined : `status ${broken}`;
      if (why)
        run.faults.push({
          case: index,
          kind,
          why,
          answer: reply.text,
          sent: bytes.subarray(0, 300).toString("latin1"),
        } satisfies Fault);
    } catch (error) {
      run.faults.push({ case: index, kind: "body", why: (error as Error).message, answer: "", sent: "" });
    }
    say(() => `${run.cases} of ${total} cases, ${run.faults.length} faults`);
  }
  sender.close();
}
await Promise.all(Array.from({ length: Number(flags.side) }, lane));
run.seconds = Math.round((performance.now() - started) / 1000);
run.interrupted = interrupted;
run.alive = server.alive;
run.ready = await server.ready();
run.memory.push({ cases: run.cases, ...server.memory() });
run.ending = await server.stop();
run.complaints = server.complaints.slice(-20);
const checks = checksOf(run);
const failed = publish(flags.out, "fuzz", checks, markdownOf(run, checks), run);
process.exit(interrupted ? 130 : failed);
