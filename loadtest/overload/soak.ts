/** `npm run soak`: 80% of the capacity for a long time; memory and the event loop must not drift. */

import { parseArgs } from "node:util";
import { machine } from "../bench/machine.ts";
import { median } from "../bench/measure.ts";
import { type Check, checkTable, publish, spread, table } from "../report/checks.ts";
import { StrainedServer } from "../servers/strained.ts";
import { type Asked, capacity, openLoop } from "../traffic/ask.ts";
import { floodBody } from "./flood.ts";

const { values: flags } = parseArgs({
  options: {
    minutes: { type: "string", default: "20" },
    load: { type: "string", default: "0.8" },
    model: { type: "string", default: "stories-didi" },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run soak -- [flags]
  --minutes <n>   (default 20)
  --load <x>      share of the capacity, which is measured first (default 0.8)
  --model <name>  a model folder (default stories-didi)
  --out <folder>  where soak.md and soak.json go (default: printed only)
Ctrl-C ends it and reports what there was.`);
  process.exit(0);
}
const seconds = 60 * Number(flags.minutes);
/** Share of the time after which the server is warm, and share at the end that is held against it. */
const WARM = 0.25;
const LAST = 0.2;
const MOST_GROWTH = 1.05;
/** Times the delay just after warm-up. The delay of an idle loop is 10 ms as Node measures it: its own grain. */
const MOST_DELAY = 1.5;
const SAMPLES = 60;

// A cache that is full soon: until then it grows, as it should.
const server = await StrainedServer.start(["--model", flags.model, "--cache-mb", "4"]);
let interrupted = false;
process.on("SIGINT", () => {
  if (interrupted) process.exit(130);
  interrupted = true;
});
const body = (index: number) => {
  const { deadline_ms: _, ...rest } = floodBody(index);
  return rest;
};
const whole = await capacity(server.origin, 16, Math.min(20, seconds / 10), (index) => body(1e6 + index));
const perSecond = Number(flags.load) * whole;
console.error(
  `capacity ${whole.toFixed(1)} a second; ${perSecond.toFixed(1)} a second for ${flags.minutes} minutes`,
);

interface Sample {
  second: number;
  serverMb: number;
  runtimeMb: number;
  /** 99th percentile since the last one. */
  delayMs: number;
  answerMs: number;
}
const samples: Sample[] = [];
let recent: Asked[] = [];
let answered = 0;
let others = 0;
const started = performance.now();
const take = async () => {
  const { server: serverMb, runtimes: runtimeMb } = server.memory();
  const delayMs = 1000 * (await server.metric("nodejs_eventloop_lag_p99_seconds"));
  const times = recent.map(({ sentAt, doneAt }) => doneAt - sentAt);
  recent = [];
  const second = Math.round((performance.now() - started) / 1000);
  samples.push({ second, serverMb, runtimeMb, delayMs, answerMs: spread(times).median });
  process.stderr.write(
    `${second} s: server ${serverMb.toFixed(0)} MB, event loop ${delayMs.toFixed(1)} ms, ${answered} answers\n`,
  );
};
const sampling = setInterval(() => void take(), (1000 * seconds) / SAMPLES);
await openLoop(
  server.origin,
  perSecond,
  seconds,
  body,
  (asked) => {
    if (asked.status === 200) answered++;
    else others++;
    recent.push(asked);
  },
  () => interrupted,
);
clearInterval(sampling);
await take();
const ready = await server.ready();
const ending = await server.stop();

const until = samples.at(-1)!.second;
const between = (from: number, to: number) =>
  samples.filter(({ second }) => second > from * until && second <= to * until);
const mid = (of: Sample[], field: keyof Sample) =>
  of.length > 0 ? median(of.map((sample) => sample[field])) : 0;
const [warm, last] = [between(WARM, WARM + LAST), between(1 - LAST, 1)];
const [rss, rssEnd] = [mid(warm, "serverMb"), mid(last, "serverMb")];
const [delay, delayEnd] = [mid(warm, "delayMs"), mid(last, "delayMs")];
const checks: Check[] = [
  {
    claim: "every request was answered",
    holds: others === 0,
    seen: `${answered} answered, ${others} not`,
  },
  {
    claim: "memory of the server at the end within 5% of that after warm-up",
    holds: rssEnd <= MOST_GROWTH * rss,
    seen: `${rss.toFixed(1)} MB, then ${rssEnd.toFixed(1)} MB (${((rssEnd / rss - 1) * 100).toFixed(1)}%)`,
  },
  {
    claim: "event-loop delay (99%) flat",
    holds: delayEnd <= MOST_DELAY * delay,
    seen: `${delay.toFixed(1)} ms, then ${delayEnd.toFixed(1)} ms`,
  },
  {
    claim: "ready afterwards, and SIGTERM ends it with exit code 0",
    holds: ready && ending.code === 0,
    seen: `ready: ${ready}, exit ${ending.code ?? ending.signal}`,
  },
];
const rows = samples.map((s) => [
  s.second,
  s.serverMb.toFixed(1),
  s.runtimeMb.toFixed(1),
  s.delayMs.toFixed(1),
  s.answerMs.toFixed(0),
]);
const markdown = `# Soak

${machine(flags.model)}. ${(until / 60).toFixed(1)} minutes${interrupted ? ", interrupted" : ""} at ${flags.load} of a capacity of ${whole.toFixed(1)} requests a second; 32 tokens in 8 steps, no two the same, a cache of 4 MB.
Warm-up is the first quarter; what is compared is the median of the fifth after it with that of the last fifth.

${checkTable(checks)}

${table(["second", "server, MB", "runtime process, MB", "event-loop delay 99%, ms", "answer, median, ms"], rows)}`;
const data = {
  machine: machine(flags.model),
  capacity: whole,
  load: Number(flags.load),
  interrupted,
  answered,
  others,
  samples,
  ending,
};
const failed = publish(flags.out, "soak", checks, markdown, data);
process.exit(interrupted ? 130 : failed);
