/** The built server as a child process: the one way in which every load and benchmark starts it. */

import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { childrenOf, treeUse } from "./processes.ts";
import { scrape } from "./scrape.ts";
import { untilReady } from "./until-ready.ts";

/** A line of the server's log. */
export interface LogLine {
  level: number;
  msg: string;
  workerPid?: number;
  [field: string]: unknown;
}

/** How the server ended. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Processes that ran ONNX Runtime and still existed afterwards. */
  left: number;
}

/** Resident megabytes; 0 where there is no /proc. */
export interface Memory {
  server: number;
  workers: number;
}

/** Lines of standard error that are kept. */
const KEPT_LINES = 200;

/** A server on a free port of the loopback interface. Emits `log` for each line of its log. */
export class Server extends EventEmitter<{ log: [LogLine] }> {
  readonly pid: number;
  readonly port: number;

  private constructor(
    readonly child: ChildProcess,
    readonly origin: string,
    /** Seconds from the start of the process until it was ready. */
    readonly readySeconds: number,
    /** The last lines of standard error. */
    readonly errors: readonly string[],
  ) {
    super();
    this.pid = child.pid!;
    this.port = Number(new URL(origin).port);
    createInterface({ input: child.stdout! }).on("line", (line) => {
      if (line.startsWith("{")) this.emit("log", JSON.parse(line) as LogLine);
    });
  }

  /**
   * Start `serve` with these flags and wait until it is ready. The server ends with this process, but not by a Ctrl-C
   * that is meant for this process: its starter stops it.
   *
   * @param options.heapMb limit of the old generation of the server's heap, in megabytes (default: Node's)
   * @throws Error with the server's last lines if it does not get ready
   *
   *     const server = await Server.start(["--model", "stories-didi", "--cache-mb", "0"]);
   */
  static async start(flags: readonly string[], options: { heapMb?: number } = {}): Promise<Server> {
    const node = options.heapMb === undefined ? [] : [`--max-old-space-size=${options.heapMb}`];
    const serve = [join(PACKAGE_ROOT, "dist", "main.js"), "serve", "--port", "0", "--device", "cpu"];
    const started = performance.now();
    const child = spawn(process.execPath, [...node, ...serve, "--log-level", "warn", ...flags], {
      cwd: PACKAGE_ROOT,
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    process.once("exit", () => child.kill("SIGKILL"));
    const errors: string[] = [];
    createInterface({ input: child.stderr }).on("line", (line) => {
      errors.push(line);
      if (errors.length > KEPT_LINES) errors.shift();
    });
    const { origin } = await untilReady(child).catch((error: Error) => {
      child.kill("SIGKILL");
      throw new Error([error.message, ...errors.slice(-5)].join("\n").trim());
    });
    return new Server(child, origin, (performance.now() - started) / 1000, errors);
  }

  /** True while the process lives. */
  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Ids of the processes that run ONNX Runtime. */
  workerPids(): number[] {
    return childrenOf(this.pid);
  }

  memory(): Memory {
    const use = treeUse(this.pid);
    return {
      server: (use?.own.residentBytes ?? 0) / 1e6,
      workers: (use?.children.residentBytes ?? 0) / 1e6,
    };
  }

  /** Whether /readyz answers 200 within a second. */
  async ready(): Promise<boolean> {
    try {
      const response = await fetch(`${this.origin}/readyz`, { signal: AbortSignal.timeout(1000) });
      await response.arrayBuffer();
      return response.ok;
    } catch {
      return false;
    }
  }

  /** The value of one of the server's metrics, labels included in its name; 0 if it has no such metric yet. */
  async metric(name: string): Promise<number> {
    return (await scrape(this.origin)).get(name) ?? 0;
  }

  /** End the server by a signal, after `patienceMs` by SIGKILL. Return how it ended; at once if it had ended before. */
  async stop(signal: NodeJS.Signals = "SIGTERM", patienceMs = 40_000): Promise<Ending> {
    const pids = this.workerPids();
    if (this.alive) {
      const late = setTimeout(() => this.child.kill("SIGKILL"), patienceMs);
      const exit = once(this.child, "exit");
      this.child.kill(signal);
      await exit;
      clearTimeout(late);
      // A worker may take a moment to end.
      await sleep(300);
    }
    const { exitCode: code, signalCode } = this.child;
    return { code, signal: signalCode, left: pids.filter((pid) => existsSync(`/proc/${pid}`)).length };
  }
}
