/** `npm run overload`: a flood of ten times the capacity, then slow and silent clients. */

import { decimal, integer } from "../../src/cli/parsers.ts";
import { flag, script } from "../cli/script.ts";
import { publish } from "../report/checks.ts";
import { machine } from "../servers/machine.ts";
import { Server } from "../servers/server.ts";
import { capacity, floodBody } from "./ask.ts";
import { burst, flood } from "./flood.ts";
import { checksOf, markdownOf } from "./report.ts";
import { slowClients } from "./slow.ts";

interface Flags {
  seconds: number;
  times: number;
  slow: number;
  size: number;
  model: string;
  speed: boolean;
  out?: string;
}

/** A shorter queue than the default, which empties within seconds. */
const [QUEUE, ACTIVE] = [64, 32];

const say = (text: string) => console.error(text);

await script<Flags>(
  "overload",
  "Send ten times the capacity of the server, then hold a thousand idle and slow connections open. Linux.",
  [
    flag("--seconds <n>", "length of the flood", integer(1, 86_400), 60),
    flag(
      "--times <x>",
      "rate of the flood over the capacity, which is measured first",
      decimal(0.1, 1000),
      10,
    ),
    flag("--slow <seconds>", "duration of the slow clients; 0 skips them", integer(0, 86_400), 120),
    flag(
      "--size <x>",
      "number of slow clients; 1 is a thousand idle connections and 320 slow ones",
      decimal(0.001, 100),
      1,
    ),
    flag("--model <name|folder>", "model to serve", undefined, "stories-didi"),
    flag("--no-speed", "skip the checks that depend on the speed of the machine"),
    flag("--out <folder>", "write overload.md and overload.json here (default: print the report)"),
  ],
  async ({ seconds, times, slow: stay, size, model, speed, out }) => {
    process.once("SIGINT", () => process.exit(130));
    const limits = ["--cache-mb", "0", "--max-queue", `${QUEUE}`, "--max-active", `${ACTIVE}`];
    const server = await Server.start(["--model", model, ...limits]);
    say("measuring the capacity with a closed loop of 16 clients");
    const whole = (index: number) => floodBody(2 * index + 1);
    await capacity(server.origin, 16, Math.min(3, seconds / 4), whole);
    const perSecond = await capacity(server.origin, 16, Math.min(10, seconds / 2), whole);
    say(`capacity ${perSecond.toFixed(1)} requests a second; flood of ${times} times that for ${seconds} s`);
    const flooded = await flood(server, times * perSecond, seconds);
    say("burst; refused requests are sent again after their Retry-After");
    const returned = await burst(server.origin, QUEUE + ACTIVE + 50);
    if (stay > 0) say(`slow clients, for ${stay} s`);
    const slow = stay > 0 ? await slowClients(server, stay, size) : undefined;
    const run = {
      machine: machine(model),
      queue: QUEUE,
      active: ACTIVE,
      capacity: perSecond,
      flooded,
      returned,
      ...(slow && { slow }),
      ready: await server.ready(),
      ending: await server.stop(),
    };
    const checks = checksOf(run).filter((check) => speed || !check.speed);
    return publish(out, "overload", checks, markdownOf(run, checks), run);
  },
);
