/** Requests of the benchmarks to a server, and its memory. */

import type { Server } from "../servers/server.ts";
import { closedLoop } from "../traffic/closed.ts";
import { keyHeaders, post } from "../traffic/http.ts";

/** A request of a benchmark. */
export interface Job {
  length: number;
  steps: number;
  seed: number;
  logprobs?: boolean;
  top_logprobs?: number;
}

/**
 * Send one request with an empty prompt; return the number of new tokens. Rejects with the answer of the
 * server.
 */
export async function generate(origin: string, job: Job): Promise<number> {
  const asked = { prompt: "", guidance: { mode: "none" }, ...job };
  const { status, body } = await post(`${origin}/generate`, asked, { headers: keyHeaders() });
  if (status !== 200) throw new Error(body);
  return (JSON.parse(body) as { usage: { completion_tokens: number } }).usage.completion_tokens;
}

/**
 * Return tokens a second of a closed loop of `rounds` requests a client, spread evenly over several servers.
 */
export async function served(
  origin: string | readonly string[],
  clients: number,
  rounds: number,
  length: number,
  steps: number,
): Promise<number> {
  const origins = [origin].flat();
  let tokens = 0;
  const seconds = await closedLoop(
    clients,
    async (c, round) => {
      // Not `tokens += await`, which reads the sum before it waits.
      const own = await generate(origins[c % origins.length]!, { length, steps, seed: round * clients + c });
      tokens += own;
    },
    (round) => round < rounds,
  );
  return tokens / seconds;
}

/** Print the memory of a server. */
export function sayMemory(server: Server, when: string): void {
  const megabytes = (value: number) => `${Math.ceil(value).toLocaleString("en")} MB`;
  const { server: own, workers } = server.memory();
  if (own > 0) console.log(`Memory ${when}: server ${megabytes(own)}, worker ${megabytes(workers)}`);
}
