/** `npm run soak`: 80% of the capacity for a long time; memory and the event loop must not drift. */

import { decimal } from "../../src/cli/parsers.ts";
import { flag, interruption, script } from "../cli/script.ts";
import { type Check, checkTable, percentiles, publish } from "../report/checks.ts";
import { table } from "../report/table.ts";
import { machine } from "../servers/machine.ts";
import { Server } from "../servers/server.ts";
import { openLoop } from "../traffic/open.ts";
import { median } from "../traffic/statistics.ts";
import { type Asked, ask, capacity, evenly, floodBody } from "./ask.ts";

interface Flags {
  minutes: number;
  load: number;
  model: string;
  out?: string;
}

/** One look at the server. */
interface Sample {
  second: number;
  serverMb: number;
  runtimeMb: number;
  /** 99th percentile since the last sample. */
  delayMs: number;
  answerMs: number;
}

/** Share of the time after which the server is warm, and share at the end that is compared with it. */
const WARM = 0.25;
const LAST = 0.2;
const MOST_GROWTH = 1.05;
/** Times the delay just after warm-up. Node's own resolution makes it 10 ms for an idle loop. */
const MOST_DELAY = 1.5;
const SAMPLES = 60;

await script<Flags>(
  "soak",
  "Keep the server at a share of its capacity for a long time; memory and event-loop delay must stay flat. Linux.",
  [
    flag("--minutes <x>", "how long", decimal(0.1, 10_000), 20),
    flag("--load <x>", "share of the capacity, which is measured first", decimal(0.01, 10), 0.8),
    flag("--model <name|folder>", "model to serve", undefined, "stories-didi"),
    flag("--out <folder>", "write soak.md and soak.json here (default: print the report alone)"),
  ],
  soak,
);

async function soak({ minutes, load, model, out }: Flags): Promise<number> {
  const seconds = 60 * minutes;
  // A small cache that is soon full: until then it grows, as it should.
  const server = await Server.start(["--model", model, "--cache-mb", "4"]);
  const interrupted = interruption();
  const body = (index: number) => {
    const { deadline_ms: _, ...rest } = floodBody(index);
    return rest;
  };
  const whole = await capacity(server.origin, 16, Math.min(20, seconds / 10), (index) => body(1e6 + index));
  const perSecond = load * whole;
  console.error(
    `capacity ${whole.toFixed(1)} a second; ${perSecond.toFixed(1)} a second for ${minutes} minutes`,
  );

  const samples: Sample[] = [];
  let recent: Asked[] = [];
  let answered = 0;
  let others = 0;
  const started = performance.now();
  const take = async () => {
    const { server: serverMb, workers: runtimeMb } = server.memory();
    const delayMs = 1000 * (await server.metric("nodejs_eventloop_lag_p99_seconds"));
    const times = recent.map(({ sentAt, doneAt }) => doneAt - sentAt);
    recent = [];
    const second = Math.round((performance.now() - started) / 1000);
    samples.push({ second, serverMb, runtimeMb, delayMs, answerMs: percentiles(times).median });
    process.stderr.write(
      `${second} s: server ${serverMb.toFixed(0)} MB, event loop ${delayMs.toFixed(1)} ms, ${answered} answers\n`,
    );
  };
  const sampling = setInterval(() => void take(), (1000 * seconds) / SAMPLES);
  let sent = 0;
  const send = async () => {
    const asked = await ask(server.origin, body(sent++));
    if (asked.status === 200) answered++;
    else others++;
    recent.push(asked);
  };
  await openLoop(evenly(perSecond, seconds), send, interrupted);
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

${machine(model)}. ${(until / 60).toFixed(1)} minutes${interrupted.aborted ? ", interrupted" : ""} at ${load} of a capacity of ${whole.toFixed(1)} requests a second; 32 tokens in 8 steps, no two the same, a cache of 4 MB.
Warm-up is the first quarter; what is compared is the median of the fifth after it with that of the last fifth.

${checkTable(checks)}

${table(["second", "server, MB", "worker, MB", "event-loop delay 99%, ms", "answer, median, ms"], rows)}`;
  const data = {
    machine: machine(model),
    capacity: whole,
    load: load,
    interrupted: interrupted.aborted,
    answered,
    others,
    samples,
    ending,
  };
  const failed = publish(out, "soak", checks, markdown, data);
  return interrupted.aborted ? 130 : failed;
}
