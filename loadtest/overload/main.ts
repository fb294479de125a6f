/** `npm run overload`: ten times the capacity, and people who are slow. */

import { parseArgs } from "node:util";
import { machine } from "../bench/machine.ts";
import { publish } from "../report/checks.ts";
import { StrainedServer } from "../servers/strained.ts";
import { capacity } from "../traffic/ask.ts";
import { burst, flood, floodBody } from "./flood.ts";
import { checksOf, markdownOf } from "./report.ts";
import { slowPeople } from "./slow.ts";

const { values: flags } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    times: { type: "string", default: "10" },
    slow: { type: "string", default: "120" },
    size: { type: "string", default: "1" },
    model: { type: "string", default: "stories-didi" },
    "no-speed": { type: "boolean", default: false },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run overload -- [flags]
  --seconds <n>   of the flood (default 60)
  --times <n>     of the capacity, which is measured first (default 10)
  --slow <n>      seconds that slow and silent people stay; 0 leaves them out (default 120)
  --size <x>      1 is a thousand idle sockets and some 320 slow ones (default 1)
  --model <name>  a model folder (default stories-didi)
  --no-speed      leaves out what depends on how fast the machine is
  --out <folder>  where overload.md and overload.json go (default: printed only)
Ctrl-C ends it.`);
  process.exit(0);
}
process.once("SIGINT", () => process.exit(130));
const seconds = Number(flags.seconds);
const say = (text: string) => console.error(text);

/** A shorter queue than the default, so that what is waited for is told in seconds and not in minutes. */
const QUEUE = 64;
const ACTIVE = 32;
const server = await StrainedServer.start([
  "--model",
  flags.model,
  "--cache-mb",
  "0",
  "--max-queue",
  String(QUEUE),
  "--max-active",
  String(ACTIVE),
]);
say("capacity: 16 clients that wait for their answers");
const whole = (index: number) => floodBody(2 * index + 1);
await capacity(server.origin, 16, Math.min(3, seconds / 4), whole);
const perSecond = await capacity(server.origin, 16, Math.min(10, seconds / 2), whole);
say(`${perSecond.toFixed(1)} a second; now ${flags.times} times as many for ${seconds} s`);
const flooded = await flood(server, Number(flags.times) * perSecond, seconds);
say("a burst, and those refused come back when they were told to");
const returned = await burst(server.origin, QUEUE + ACTIVE + 50);
const stay = Number(flags.slow);
if (stay > 0) say(`people who are slow, for ${stay} s`);
const slow = stay > 0 ? await slowPeople(server, stay, Number(flags.size)) : undefined;
const ready = await server.ready();
const ending = await server.stop();
const run = {
  machine: machine(flags.model),
  queue: QUEUE,
  active: ACTIVE,
  capacity: perSecond,
  flooded,
  returned,
  ...(slow && { slow }),
  ready,
  ending,
};
const checks = checksOf(run).filter(({ speed }) => !(speed && flags["no-speed"]));
process.exit(publish(flags.out, "overload", checks, markdownOf(run, checks), run));
