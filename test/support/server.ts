/** Starts the server from its sources as a child process: the one way in which tests do it. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

/** Arguments of Node that run the command line from its sources. */
export const ENTRY = ["--import", "tsx", join(PACKAGE_ROOT, "src", "main.ts")];

/** A running server. */
export interface TestServer {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Its origin, such as `http://127.0.0.1:41234`. */
  readonly origin: string;
  readonly port: number;
  /** Its exit code, when it ends. */
  readonly exit: Promise<number | null>;
  /** Its output on both streams, the log included. */
  output(): string;
  /** Resolve with the match when the output has it. Rejects if the server ends before. */
  said(pattern: RegExp): Promise<RegExpExecArray>;
  /** Kill it, unless it has ended. */
  stop(): Promise<void>;
}

/**
 * Start `didi-serve serve` on a free port with one thread, and wait until it is ready. `node` are flags of
 * Node. The server ends with this process at the latest.
 */
export async function startServer(
  flags: readonly string[],
  node: readonly string[] = [],
): Promise<TestServer> {
  const args = [...node, ...ENTRY, "serve", "--port", "0", "--threads", "1", ...flags];
  const child = spawn(process.execPath, args, { cwd: PACKAGE_ROOT, stdio: ["ignore", "pipe", "pipe"] });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  void exit.then(() => process.removeListener("exit", kill));
  const ended = () => child.exitCode !== null || child.signalCode !== null;
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (chunk) => {
      output += chunk;
    });
  const said = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const match = pattern.exec(output);
      if (match) return match;
      if (ended()) throw new Error(`the server ended: ${output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const origin = (await said(/ready at (\S+)/))[1]!;
  return {
    ...{ child, pid: child.pid!, origin, port: Number(new URL(origin).port), exit, said },
    output: () => output,
    async stop() {
      if (ended()) return;
      kill();
      await once(child, "exit");
    },
  };
}
