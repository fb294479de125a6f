/** The built server as a child process, for all load tests and benchmarks. */

import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { childrenOf, treeUse } from "./processes.ts";

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

/**
 * Read the standard output of a starting server until it prints its address, and discard the rest. Return the
 * address and the output so far. Rejects if the server ends before.
 */
export async function untilReady(server: ChildProcess): Promise<{ origin: string; output: string }> {
  let output = "";
  // The pipe must stay open: a server that cannot write its log would fail.
  for await (const chunk of server.stdout!.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
    output += chunk;
    // The example after the address belongs to the output; a line of the log may follow at once.
    const ready = /ready at (\S+)\n\n[\s\S]+?\n\n/.exec(output);
    if (ready) {
      server.stdout!.resume();
      return { origin: ready[1]!, output };
    }
  }
  throw new Error(`the server did not start: ${output}`);
}

/** Return the samples of /metrics by name, with the labels as written. Rejects without an answer. */
export async function scrape(
  origin: string,
  headers: Record<string, string> = {},
): Promise<Map<string, number>> {
  const response = await fetch(`${origin}/metrics`, { headers, signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`${origin}/metrics answers with ${response.status}`);
  const samples = new Map<string, number>();
  for (const line of (await response.text()).split("\n")) {
    const [, name, value] = /^([^#\s{]+(?:\{.*\})?) (\S+)/.exec(line) ?? [];
    if (name) samples.set(name, Number(value));
  }
  return samples;
}

/** Lines of standard error that are kept. */
const KEPT_LINES = 200;

/** Node measures the delay of its event loop as the intervals of a timer, this period included. */
const EVENT_LOOP_TIMER_MS = 10;

/** A server on a free loopback port. Emits `log` for each line of its log. */
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
   * Start `serve` with these flags and wait until it is ready. The server ends with this process; Ctrl-C does
   * not reach it, because its starter stops it.
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

  /**
   * The value of one of the server's metrics, labels included in its name; 0 if it has no such metric yet.
   */
  async metric(name: string): Promise<number> {
    return (await scrape(this.origin)).get(name) ?? 0;
  }

  /** Return the 99th percentile of the event loop's delay since the last call, milliseconds. */
  async eventLoopDelayMs(): Promise<number> {
    const interval = 1000 * (await this.metric("nodejs_eventloop_lag_p99_seconds"));
    return Math.max(0, interval - EVENT_LOOP_TIMER_MS);
  }

  /** Stop the server with a signal, after `patienceMs` with SIGKILL, and return how it ended. */
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
