/** `npm run soak`: 80% of the capacity for a long time; memory and event-loop delay must not grow. */

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

/** One sample of the server's state. */
interface Sample {
  second: number;
  serverMb: number;
  runtimeMb: number;
  /** 99th percentile since the last sample. */
  delayMs: number;
  answerMs: number;
}

/** Share of the time for warm-up, and the shares after it and at the end that are compared. */
const WARM = 0.25;
const LAST = 0.2;
const MOST_GROWTH = 1.05;
/** Limit on the growth of the event-loop delay. Its resolution in Node is 10 ms. */
const MOST_DELAY = 1.5;
const SAMPLES = 60;

await script<Flags>(
  "soak",
  "Load the server with a share of its capacity for a long time; memory and delay must not grow. Linux.",
  [
    flag("--minutes <x>", "duration", decimal(0.1, 10_000), 20),
    flag("--load <x>", "share of the capacity, which is measured first", decimal(0.01, 10), 0.8),
    flag("--model <name|folder>", "model to serve", undefined, "stories-didi"),
    flag("--out <folder>", "write soak.md and soak.json here (default: print the report)"),
  ],
  soak,
);

async function soak({ minutes, load, model, out }: Flags): Promise<number> {
  const seconds = 60 * minutes;
  // A small cache is soon full; until then memory grows.
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
    const delayMs = await server.eventLoopDelayMs();
    const times = recent.map(({ sentAt, doneAt }) => doneAt - sentAt);
    recent = [];
    const second = Math.round((performance.now() - started) / 1000);
    samples.push({ second, serverMb, runtimeMb, delayMs, answerMs: percentiles(times).median });
    process.stderr.write(
      `${second} s: server ${serverMb.toFixed(0)} MB, delay ${delayMs.toFixed(1)} ms, ${answered} answers\n`,
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
      claim: "event-loop delay (99%) did not grow",
      holds: delayEnd <= MOST_DELAY * delay,
      seen: `${delay.toFixed(1)} ms, then ${delayEnd.toFixed(1)} ms`,
    },
    {
      claim: "ready afterwards, and exit code 0 after SIGTERM",
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
  const minutesRun = `${(until / 60).toFixed(1)} minutes${interrupted.aborted ? ", interrupted" : ""}`;
  const markdown = `# Soak

${machine(model)}.
${minutesRun} at ${load} of a capacity of ${whole.toFixed(1)} requests a second; 32 tokens in 8 steps,
all different, a cache of 4 MB. Warm-up is the first quarter; the checks compare the median of the next fifth
with that of the last.

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
