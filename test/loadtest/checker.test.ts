/** The checker against a server that sends wrong answers over HTTP. */

import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import { after, before, test } from "node:test";
import { WebSocketServer } from "ws";
import { runClosed } from "../../loadtest/servers/side.ts";
import { servedCell } from "../../loadtest/sweep/plan.ts";
import { Recorder } from "../../loadtest/traffic/recorder.ts";
import { requestOf, Seeds } from "../../loadtest/traffic/traffic.ts";
import { Transports } from "../../loadtest/traffic/transports.ts";
import type { GenerateRequest, StreamEvent } from "../../src/client/index.ts";

const SHAPE = { name: "a", weight: 1, steps: 4, length: 8, guidance: "none" as const };

/** Return the events of a correct server: two positions a step. */
function honest(request: GenerateRequest): StreamEvent[] {
  const id = "x";
  const [length, steps, seed] = [Number(request.length), Number(request.steps), Number(request.seed)];
  const token = (position: number) => (seed + position) % 100;
  const each = length / steps;
  return [
    { type: "accepted", id, seed, spans: [{ start: 0, length }] },
    ...Array.from({ length: steps }, (_, step): StreamEvent => {
      const revealed = Array.from({ length: each }, (_, i) => {
        const position = step * each + i;
        return { position, token: token(position), text: "", logprob: -1 };
      });
      return {
        type: "step",
        id,
        sample: 0,
        step: step + 1,
        steps,
        t: 1,
        revealed,
        masked: length - (step + 1) * each,
        text: "",
      };
    }),
    {
      type: "done",
      ...{ id, model: "m", seed, cache: "miss" as const },
      samples: [
        { sample: 0, text: "", tokens: Array.from({ length }, (_, i) => token(i)), finish_reason: "length" },
      ],
      usage: {
        prompt_tokens: 0,
        completion_tokens: length,
        steps,
        steps_done: steps,
        student_passes: steps,
        discriminator_passes: 0,
        gradient_passes: 0,
      },
      receipt: {} as Extract<StreamEvent, { type: "done" }>["receipt"],
      timing: { queue_ms: 0, compute_ms: 1, total_ms: 1 },
    },
  ];
}

type Step = Extract<StreamEvent, { type: "step" }>;
type Done = Extract<StreamEvent, { type: "done" }>;
const done = (events: StreamEvent[]) => events.at(-1) as Done;

/** Wrong answers, and the kind of error that the checker must report. */
const STREAM_LIES: [name: string, kind: string, lie: (events: StreamEvent[]) => StreamEvent[]][] = [
  ["a step twice", "duplicate step", (e) => [...e.slice(0, 3), e[2]!, ...e.slice(3)]],
  ["a step left out", "missing step", (e) => e.toSpliced(2, 1)],
  ["the last step left out", "missing step", (e) => e.toSpliced(4, 1)],
  [
    "another token in done than in the steps",
    "reveals do not add up",
    (e) => {
      done(e).samples[0]!.tokens[3] = 99_999;
      return e;
    },
  ],
  [
    "a reveal that is not counted",
    "reveals do not add up",
    (e) => {
      (e[2] as Step).revealed.pop();
      return e;
    },
  ],
  [
    "a position revealed twice",
    "reveals do not add up",
    (e) => {
      (e[2] as Step).revealed[0]!.position = 0;
      return e;
    },
  ],
  [
    "a step of another budget",
    "wrong steps",
    (e) => {
      (e[2] as Step).steps = 5;
      return e;
    },
  ],
  ["no done", "malformed", (e) => e.slice(0, -1)],
  ["no accepted", "malformed", (e) => e.slice(1)],
  ["a step after done", "missing step", (e) => [...e.slice(0, -2), e.at(-1)!, e.at(-2)!]],
];
const ANSWER_LIES: [name: string, kind: string, lie: (answer: Done) => void][] = [
  ["too few tokens", "wrong length", (a) => a.samples[0]!.tokens.pop()],
  ["a count that is not that of the tokens", "wrong length", (a) => a.usage.completion_tokens++],
  ["another budget", "wrong steps", (a) => a.usage.steps--],
  [
    "another seed",
    "other seed",
    (a) => {
      a.seed++;
    },
  ],
  [
    "an answer from the cache",
    "cached",
    (a) => {
      a.cache = "hit";
    },
  ],
  ["no sample", "malformed", (a) => a.samples.pop()],
];

let lie: (events: StreamEvent[]) => StreamEvent[] = (events) => events;
let server: Server;
let sockets: WebSocketServer;
let origin: string;
before(async () => {
  server = createServer(async (incoming, outgoing) => {
    let body = "";
    for await (const chunk of incoming) body += chunk;
    const events = lie(honest(JSON.parse(body)));
    if (!incoming.headers.accept?.includes("event-stream")) {
      const { type: _, ...answer } = events.at(-1) as Done;
      outgoing.setHeader("content-type", "application/json").end(JSON.stringify(answer));
      return;
    }
    outgoing.setHeader("content-type", "text/event-stream");
    outgoing.end(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(""));
  });
  sockets = new WebSocketServer({ server });
  sockets.on("connection", (socket) =>
    socket.on("message", (data) => {
      for (const event of lie(honest(JSON.parse(data.toString())))) socket.send(JSON.stringify(event));
      // A stream that ends early ends here.
      if (lie !== truth) socket.close();
    }),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
});
after(() => {
  sockets.close();
  for (const socket of sockets.clients) socket.terminate();
  server.closeAllConnections();
  server.close();
});
const truth = lie;

/** Run a loop of 2 clients with 3 requests each; return the record. */
async function load(transport: "post" | "sse" | "ws"): Promise<Recorder> {
  const recorder = new Recorder();
  const transports = new Transports(origin);
  const send = transports.send(transport);
  const job = {
    cell: servedCell(transport, { kind: "closed", clients: 2 }, [SHAPE]),
    ...{ amount: { rounds: 3 }, recorder, seeds: new Seeds(10), timeoutMs: 20_000 },
    signal: new AbortController().signal,
  };
  await runClosed(job, (ask, signal) => send(requestOf(ask), signal));
  transports.close();
  return recorder;
}

for (const transport of ["post", "sse", "ws"] as const)
  test(`a correct server has no errors: ${transport}`, async () => {
    lie = truth;
    const recorder = await load(transport);
    assert.deepEqual(recorder.errors, {});
    assert.deepEqual([recorder.requests, recorder.tokens, recorder.passes.student], [6, 48, 24]);
    const { first_step, step_gap, latency } = recorder.times.times();
    assert.equal(latency!.count, 6);
    const streams = transport === "sse" || transport === "ws";
    assert.equal(first_step?.count, streams ? 6 : undefined);
    assert.equal(step_gap?.count, streams ? 18 : undefined);
  });

for (const transport of ["sse", "ws"] as const)
  for (const [name, kind, told] of STREAM_LIES)
    test(`${transport}: ${name} is an error`, async () => {
      lie = told;
      const recorder = await load(transport);
      // Where a socket or stream just ends, that is what is seen.
      const expected = kind === "malformed" && name === "no done" ? "connection" : kind;
      assert.equal(recorder.requests, 0);
      assert.deepEqual(recorder.errors, { [expected]: 6 });
    });

for (const transport of ["post", "sse", "ws"] as const)
  for (const [name, kind, change] of ANSWER_LIES)
    test(`${transport}: ${name} is an error`, async () => {
      lie = (events) => {
        change(done(events));
        return events;
      };
      const recorder = await load(transport);
      assert.equal(recorder.requests, 0);
      assert.deepEqual(recorder.errors, { [kind]: 6 });
    });

test("merged steps are counted and no error", async () => {
  lie = (events) => {
    const [second, third] = [events[2] as Step, events[3] as Step];
    third.revealed.unshift(...second.revealed);
    return events.toSpliced(2, 1);
  };
  const recorder = await load("sse");
  assert.deepEqual(recorder.errors, {});
  assert.equal(recorder.mergedSteps, 6);
});
