/** The built server as a process under strain: its log, its runtime processes, its memory. */

import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { untilReady } from "./until-ready.ts";

/** A line of the server's log. */
export interface LogLine {
  level: number;
  msg: string;
  runtimePid?: number;
  [field: string]: unknown;
}

/** How the server ended. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Milliseconds from the signal. */
  milliseconds: number;
  /** Runtime processes that were still there afterwards. */
  left: number;
}

/** Resident megabytes. */
export interface Memory {
  server: number;
  runtimes: number;
}

const DIGITS = /^\d+$/;

/** Resident megabytes of a process; 0 if there is none. Linux. */
function residentMb(pid: number): number {
  try {
    return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1000;
  } catch {
    return 0;
  }
}

/** A server on a free port of the loopback interface. Emits `log` for each line. */
export class StrainedServer extends EventEmitter<{ log: [LogLine] }> {
  /** The last lines of standard error. */
  readonly complaints: string[] = [];

  private constructor(
    readonly child: ChildProcess,
    readonly origin: string,
  ) {
    super();
    createInterface({ input: child.stdout! }).on("line", (line) => {
      if (line.startsWith("{")) this.emit("log", JSON.parse(line) as LogLine);
    });
    createInterface({ input: child.stderr! }).on("line", (line) => {
      this.complaints.push(line);
      if (this.complaints.length > 200) this.complaints.shift();
    });
  }

  /**
   * Starts it with flags of `serve`; it ends with this process. `heapMb` is the most that the old generation of its
   * heap may take, in megabytes (default: Node's). Rejects if it does not get ready.
   */
  static async start(
    flags: readonly string[],
    { heapMb }: { heapMb?: number } = {},
  ): Promise<StrainedServer> {
    const node = heapMb === undefined ? [] : [`--max-old-space-size=${heapMb}`];
    const args = ["dist/main.js", "serve", "--port", "0", "--device", "cpu", "--log-level", "warn", ...flags];
    const child = spawn(process.execPath, [...node, ...args], {
      cwd: PACKAGE_ROOT,
      stdio: ["ignore", "pipe", "pipe"],
      // A Ctrl-C is for the tool: it decides when the server ends.
      detached: true,
    });
    process.once("exit", () => child.kill("SIGKILL"));
    process.once("SIGTERM", () => process.exit(143));
    const { origin } = await untilReady(child);
    return new StrainedServer(child, origin);
  }

  get port(): number {
    return Number(new URL(this.origin).port);
  }

  /** True while the process lives. */
  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Process ids of its runtime processes. */
  runtimePids(): number[] {
    const { pid } = this.child;
    try {
      return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
        readFileSync(`/proc/${pid}/task/${task}/children`, "utf8")
          .split(" ")
          .filter((id) => DIGITS.test(id))
          .map(Number),
      );
    } catch {
      return [];
    }
  }

  memory(): Memory {
    const runtimes = this.runtimePids().reduce((sum, pid) => sum + residentMb(pid), 0);
    return { server: residentMb(this.child.pid!), runtimes };
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

  /** The value of a metric, labels included in its name; 0 if it is not there. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.origin}/metrics`)).text();
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${name} `));
    return line ? Number(line.slice(name.length + 1)) : 0;
  }

  /** Ends it with a signal, after `patienceMs` with SIGKILL. */
  async stop(signal: NodeJS.Signals = "SIGTERM", patienceMs = 40_000): Promise<Ending> {
    const pids = this.runtimePids();
    const started = performance.now();
    const late = setTimeout(() => this.child.kill("SIGKILL"), patienceMs);
    if (this.alive) {
      const exit = once(this.child, "exit");
      this.child.kill(signal);
      await exit;
    }
    clearTimeout(late);
    const { exitCode: code, signalCode } = this.child;
    const milliseconds = performance.now() - started;
    // A process that was told to end may take a moment.
    await new Promise((resolve) => setTimeout(resolve, 300));
    return {
      code,
      signal: signalCode,
      milliseconds,
      left: pids.filter((pid) => existsSync(`/proc/${pid}`)).length,
    };
  }
}
