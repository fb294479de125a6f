/** The server under test: started here, or one that runs already. */

import { once } from "node:events";
import { StartupError } from "../../src/errors.ts";
import { startServer } from "../bench/server.ts";
import { SERVER } from "../report/select.ts";
import { type ModelInfo, modelInfo } from "../sweep/quality.ts";
import { ServedSide } from "./served-side.ts";
import { ServerWatch } from "./watch.ts";

/** A server and what it says of its model. */
export interface Target {
  side: ServedSide;
  info: ModelInfo;
}

/** Starts the built server; `flags` go to `didi-serve serve`. Rejects with StartupError. */
export async function startTarget(model: string, flags: readonly string[]): Promise<Target> {
  const server = await startServer(model, ...flags).catch((error: Error) => {
    throw new StartupError(`${error.message} (its own message stands above)`);
  });
  const { child, origin } = server;
  const kill = () => void child.kill("SIGKILL");
  process.once("exit", kill);
  const stop = async () => {
    process.removeListener("exit", kill);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const limit = setTimeout(kill, 10_000);
    await ended;
    clearTimeout(limit);
  };
  try {
    const info = await modelInfo(origin);
    const settings = { started: "here", model, "result cache": "off", flags: flags.join(" ") || "none" };
    return { side: new ServedSide(side(settings), new ServerWatch(origin, child.pid), stop), info };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A server that runs already. Rejects with StartupError if none answers. */
export async function attachTarget(origin: string): Promise<Target> {
  const info = await modelInfo(origin).catch((error: Error) => {
    throw new StartupError(`--url ${origin}: ${error.message}: is a didi-serve running there?`);
  });
  const watch = new ServerWatch(origin, undefined);
  return { side: new ServedSide(side({ url: origin }), watch, async () => {}), info };
}

const side = (settings: Record<string, string>) => ({ name: SERVER, title: "didi-serve", settings });
