/** Starts the server under test, or connects to a running one. */

import { StartupError } from "../../src/errors.ts";
import { SERVER } from "../report/select.ts";
import { type ModelInfo, modelInfo } from "../sweep/quality.ts";
import { ServedSide } from "./served-side.ts";
import { Server } from "./server.ts";
import { ServerWatch } from "./watch.ts";

/** A server and its model. */
export interface Target {
  side: ServedSide;
  info: ModelInfo;
}

/**
 * Start the built server without its cache; `flags` are for `didi-serve serve`. Rejects with StartupError.
 */
export async function startTarget(model: string, flags: readonly string[]): Promise<Target> {
  const server = await Server.start(["--model", model, "--cache-mb", "0", ...flags]).catch((error: Error) => {
    throw new StartupError(error.message);
  });
  const settings = { started: "here", model, "result cache": "off", flags: flags.join(" ") || "none" };
  const watch = new ServerWatch(server.origin, server.pid);
  const target = new ServedSide(side(settings), watch, () => server.stop("SIGTERM", 10_000));
  try {
    return { side: target, info: await modelInfo(server.origin) };
  } catch (error) {
    await target.close();
    throw error;
  }
}

/** Connect to a running server. Rejects with StartupError if it does not answer. */
export async function attachTarget(origin: string): Promise<Target> {
  const info = await modelInfo(origin).catch((error: Error) => {
    throw new StartupError(`--url ${origin}: ${error.message}: is a didi-serve running there?`);
  });
  const watch = new ServerWatch(origin, undefined);
  return { side: new ServedSide(side({ url: origin }), watch, async () => {}), info };
}

const side = (settings: Record<string, string>) => ({ name: SERVER, title: "didi-serve", settings });
