/** A server of the autoregressive model stories-ar, which is measured by POST in a closed loop. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../../src/package-root.ts";
import type { SideInfo } from "../../report/types.ts";
import { Fault } from "../../traffic/fault.ts";
import { post } from "../../traffic/http.ts";
import type { Answer } from "../../traffic/recorder.ts";
import type { Ask } from "../../traffic/traffic.ts";
import { type PeerSide, runClosed } from "../side.ts";
import { ServerWatch } from "../watch.ts";

/** The folder of the model. */
export const STORIES_AR = join(PACKAGE_ROOT, "models", "stories-ar");

/** Its beginning-of-text token, which is the whole prompt. */
export const BEGINNING = 4094;

/** Count the tokens of an answer. Throws Fault if their number is not the requested one. */
export function countTokens(tokens: unknown, length: number): { tokens: number } {
  if (!Array.isArray(tokens) || !tokens.every(Number.isInteger)) throw new Fault("malformed");
  if (tokens.length !== length)
    throw new Fault("wrong length", `asked for ${length} tokens, got ${tokens.length}`);
  return { tokens: tokens.length };
}

/** A program that a signal ended. */
export class ProgramCrash extends Error {
  readonly signal: NodeJS.Signals;

  constructor(message: string, signal: NodeJS.Signals) {
    super(message);
    this.signal = signal;
  }
}

/** Start a program; `ready` finds the origin in its output. Rejects with its last lines if it ends before. */
export async function startProgram(
  program: string,
  args: readonly string[],
  ready: (output: string) => string | undefined,
): Promise<{ child: ChildProcess; origin: string }> {
  const child = spawn(program, args, { cwd: PACKAGE_ROOT, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const origin = await new Promise<string>((resolve, reject) => {
    const take = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-20_000);
      const found = ready(output);
      if (found) resolve(found);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      const last = output.trim().split("\n").slice(-3).join(" / ");
      const message = `${program} ended with ${signal ?? code}: ${last}`;
      reject(signal ? new ProgramCrash(message, signal) : new Error(message));
    });
  });
  process.once("exit", () => child.kill("SIGKILL"));
  return { child, origin };
}

/** The endpoint of a peer. */
export interface Endpoint {
  url: string;
  body(ask: Ask): object;
  /** Read an answer. Throws Fault if it does not fit the request. */
  read(ask: Ask, body: string): Answer;
}

/** Return a running server as a side, for the closed loop only. */
export function autoregressiveSide(
  info: SideInfo,
  { child, origin }: { child: ChildProcess; origin: string },
  { url, body, read }: Endpoint,
): PeerSide {
  return {
    info,
    budgets: false,
    watch: new ServerWatch(origin, child.pid, false),
    run: (job) =>
      runClosed(job, async (ask, signal) => {
        const reply = await post(url, body(ask), { signal });
        if (reply.status !== 200) throw new Fault(`status ${reply.status}`);
        return read(ask, reply.body);
      }),
    async close() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}
