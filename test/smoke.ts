/**
 * `npm run smoke`: `npm start`, a POST, a WebSocket, and SIGTERM, as in the first minutes of a user.
 *
 * Prints the results and exits with 1 at the first failure.
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { untilReady } from "../loadtest/servers/server.ts";
import { PACKAGE_ROOT } from "../src/package-root.ts";
import { StreamClient } from "./server/support.ts";
import { readFlags } from "./support/flags.ts";

readFlags(
  `npm run smoke
Starts the server by \`npm start\` on DIDI_PORT (18080), uses it, and stops it.`,
  {},
);

const PORT = process.env.DIDI_PORT ?? "18080";
const started = performance.now();
const seconds = () => ((performance.now() - started) / 1000).toFixed(1);

const server = spawn("npm", ["start"], {
  cwd: PACKAGE_ROOT,
  env: { ...process.env, DIDI_PORT: PORT, DIDI_LOG_LEVEL: "warn" },
  stdio: ["ignore", "pipe", "inherit"],
});
// The pipe closes when neither npm nor the server is left: npm's shell may end before the server.
const closed = once(server, "close");
try {
  const { origin, output } = await untilReady(server);
  assert.equal(origin, `http://127.0.0.1:${PORT}`);
  assert.match(output, /curl -s/);

  const response = await fetch(`${origin}/generate`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "Once upon a time", length: 64, steps: 16, seed: 7 }),
  });
  assert.equal(response.status, 200);
  const answer = (await response.json()) as {
    samples: { text: string }[];
    usage: { student_passes: number };
  };
  console.log(`npm start to the first answer: ${seconds()} s`);
  console.log(
    `POST /generate: ${answer.usage.student_passes} passes: Once upon a time${answer.samples[0]!.text}`,
  );
  assert.ok(answer.usage.student_passes <= 16);

  const client = await StreamClient.connect(origin);
  client.send({ type: "generate", id: "s", prompt: "Once upon a time", length: 64, steps: 16, seed: 7 });
  const done = await client.end("s");
  for (const step of client.steps("s"))
    console.log(`step ${step.step}/${step.steps}: ${JSON.stringify(step.text)}`);
  assert.equal(client.steps("s").length, 16);
  assert.deepEqual(done.type === "done" && done.samples, answer.samples);

  server.kill("SIGTERM");
  assert.equal(await client.closed, 1001);
  server.stdout.resume();
  await closed;
  await assert.rejects(fetch(origin), "the server still listens");
  console.log(`SIGTERM: stopped after ${seconds()} s`);
} finally {
  server.kill("SIGKILL");
}
