/** The built server as a process of its own, and what the benchmarks ask of it. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { text } from "node:stream/consumers";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { treeUse } from "../servers/processes.ts";
import { scrape } from "../servers/scrape.ts";
import { untilReady } from "../servers/until-ready.ts";

export interface Server {
  child: ChildProcess;
  origin: string;
  /** Seconds from the start of the process to its readiness. */
  readySeconds: number;
}

/** Starts the built server on a free port, without its cache. */
export async function startServer(model: string, ...flags: string[]): Promise<Server> {
  const args = ["dist/main.js", "serve", "--port", "0", "--device", "cpu", "--log-level", "warn"];
  const started = performance.now();
  const child = spawn(process.execPath, [...args, "--cache-mb", "0", "--model", model, ...flags], {
    cwd: PACKAGE_ROOT,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const { origin } = await untilReady(child);
  return { child, origin, readySeconds: (performance.now() - started) / 1000 };
}

/** What a benchmark asks for. */
export interface Job {
  length: number;
  steps: number;
  seed: number;
}

// Node's fetch takes twice as much of the processor, which the server is measured on.
const agent = new Agent({ keepAlive: true });

/** One generation from an empty prompt: how many tokens came. Rejects with what the server says. */
export async function generate(origin: string, job: Job): Promise<number> {
  const headers = { "content-type": "application/json" };
  const sent = request(`${origin}/generate`, { method: "POST", headers, agent });
  sent.end(JSON.stringify({ prompt: "", guidance: { mode: "none" }, ...job }));
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  const answer = await text(response);
  if (response.statusCode !== 200) throw new Error(answer);
  return (JSON.parse(answer) as { usage: { completion_tokens: number } }).usage.completion_tokens;
}

/** Tokens a second of `clients` clients that each ask `rounds` times, spread evenly if there are several servers. */
export async function served(
  origin: string | readonly string[],
  clients: number,
  rounds: number,
  length: number,
  steps: number,
): Promise<number> {
  const origins = [origin].flat();
  const started = performance.now();
  const client = async (c: number) => {
    let tokens = 0;
    for (let r = 0; r < rounds; r++)
      tokens += await generate(origins[c % origins.length]!, { length, steps, seed: r * clients + c });
    return tokens;
  };
  const tokens = await Promise.all(Array.from({ length: clients }, (_, c) => client(c)));
  return tokens.reduce((a, b) => a + b) / ((performance.now() - started) / 1000);
}

/** The value of one of the server's own metrics. Throws if there is none of that name. */
export async function metric(origin: string, name: string): Promise<number> {
  const value = (await scrape(origin)).get(name);
  if (value === undefined) throw new Error(`no metric ${name}`);
  return value;
}

/** Resident megabytes of a server and of its runtime processes; undefined where there is no /proc. */
export function memory({ child }: Server): { server: number; runtime: number } | undefined {
  const use = treeUse(child.pid!);
  return use && { server: use.own.residentBytes / 1e6, runtime: use.children.residentBytes / 1e6 };
}

/** Prints the memory of a server. */
export function sayMemory(server: Server, when: string): void {
  const used = memory(server);
  const megabytes = (value: number) => `${Math.ceil(value).toLocaleString("en")} MB`;
  if (used)
    console.log(
      `Memory ${when}: server ${megabytes(used.server)}, runtime process ${megabytes(used.runtime)}`,
    );
}
