/** The closed loop: so many clients, each of which asks again once it is answered. */

import autocannon from "autocannon";
import { Fault, faultKind } from "./fault.ts";
import type { Answer, Recorder } from "./recorder.ts";
import type { Ask } from "./traffic.ts";

/** What every closed loop takes. */
export interface ClosedLoop {
  clients: number;
  /** Requests of each client. */
  rounds: number;
  asks: Iterator<Ask, never>;
  recorder: Recorder;
  /** Ends it; what is under way is dropped. */
  signal: AbortSignal;
  /** Longest that a request may take. */
  timeoutMs: number;
}

/** How a server is asked by POST. */
export interface Endpoint {
  url: string;
  headers?: Record<string, string>;
  body(ask: Ask): object;
  /** What the body of an answer with status 200 says. Throws Fault if it is not what was asked for. */
  read(ask: Ask, body: string): Answer;
}

/** Seconds from the first request to the last answer of a loop through `send`. */
export async function closedLoop(
  { clients, rounds, asks, recorder, signal, timeoutMs }: ClosedLoop,
  send: (ask: Ask, signal: AbortSignal) => Promise<Answer>,
): Promise<number> {
  const started = performance.now();
  const client = async () => {
    for (let round = 0; round < rounds && !signal.aborted; round++) {
      const ask = asks.next().value;
      await timed(ask, performance.now(), recorder, () =>
        send(ask, AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])),
      );
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return (performance.now() - started) / 1000;
}

/** Keeps how a request ended, its latency counted from `since`. */
export async function timed(
  { shape }: Ask,
  since: number,
  recorder: Recorder,
  send: () => Promise<Answer>,
): Promise<void> {
  try {
    const answer = await send();
    recorder.success(shape, performance.now() - since, answer);
  } catch (error) {
    const kind = faultKind(error);
    if (kind !== "interrupted") recorder.failure(kind);
  }
}

/** Seconds from the first request to the last answer of a loop of POSTs, through autocannon. */
export async function closedPosts(loop: ClosedLoop, endpoint: Endpoint): Promise<number> {
  const { clients, rounds, asks, recorder, signal, timeoutMs } = loop;
  if (signal.aborted) return 0;
  const started = performance.now();
  let ended = started;
  const checks: (() => void)[] = [];
  const keep = (ask: Ask, status: number, text: string, milliseconds: number) => {
    try {
      if (status !== 200) throw new Fault(`status ${status}`);
      recorder.success(ask.shape, milliseconds, endpoint.read(ask, text));
    } catch (error) {
      recorder.failure(faultKind(error));
    }
  };
  const checking = setInterval(() => {
    for (const check of checks.splice(0)) check();
  }, 20);
  let over!: (error: Error | null) => void;
  const end = new Promise<void>((resolve, reject) => {
    over = (error) => (error ? reject(error) : resolve());
  });

  const instance = autocannon(
    {
      url: endpoint.url,
      method: "POST",
      connections: clients,
      amount: clients * rounds,
      timeout: Math.ceil(timeoutMs / 1000),
      // How often it looks whether it is over.
      sampleInt: 5,
      setupClient(client) {
        let ask: Ask;
        let body = "";
        client.setRequests([
          {
            headers: { "content-type": "application/json", ...endpoint.headers },
            setupRequest(request) {
              ask = asks.next().value;
              return { ...request, body: JSON.stringify(endpoint.body(ask)) };
            },
            onResponse(_, received) {
              body = received;
            },
          },
        ]);
        client.on("response", (status, _bytes, milliseconds) => {
          ended = performance.now();
          const [answered, text] = [ask, body];
          // The client's next request goes out first.
          checks.push(() => keep(answered, status, text, milliseconds));
        });
      },
    },
    (error: Error | null) => over(error),
  );
  instance.on("reqError", (error: Error) =>
    recorder.failure(/timed out/.test(error.message) ? "timeout" : "connection"),
  );
  const stop = () => instance.stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    await end;
  } finally {
    signal.removeEventListener("abort", stop);
    clearInterval(checking);
    for (const check of checks) check();
  }
  return (ended - started) / 1000;
}
