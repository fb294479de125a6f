import assert from "node:assert/strict";
import { test } from "node:test";
import { startEngine } from "../../support/engine.ts";
import { listen, StreamClient } from "../support.ts";

const engine = await startEngine();

test("a client that reads nothing for 30 s gets merged steps and loses no token", async () => {
  const { app: pinging, origin } = await listen(engine, { pingMs: 12_000 });
  const client = await StreamClient.connect(origin);
  client.socket.pause();
  const readsAgain = Date.now() + 30_000;
  const [count, length, steps] = [50, 32, 1024];
  for (let i = 0; i < count; i++)
    client.send({ type: "generate", id: `g${i}`, prompt: "", length, steps, seed: i });
  const [server] = pinging.websocketServer.clients;
  let most = 0;
  let finished = 0;
  const onFinished = () => finished++;
  engine.on("finished", onFinished);
  while (finished < count || Date.now() < readsAgain) {
    most = Math.max(most, server!.bufferedAmount);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  engine.off("finished", onFinished);
  most = Math.max(most, server!.bufferedAmount);
  assert.ok(most < 1024 * 1024, `${most} bytes waited`);
  client.socket.resume();
  let events = 0;
  for (let i = 0; i < count; i++) {
    const done = await client.end(`g${i}`);
    assert.ok(done.type === "done");
    const seen = client.steps(`g${i}`);
    events += seen.length;
    const tokens = new Map(
      seen.flatMap(({ revealed }) => revealed.map(({ position, token }) => [position, token])),
    );
    assert.equal(
      seen.reduce((sum, { revealed }) => sum + revealed.length, 0),
      length,
    );
    assert.deepEqual(
      Array.from({ length }, (_, k) => tokens.get(k)),
      done.samples[0]!.tokens,
    );
    assert.ok(seen.every((step, k) => k === 0 || step.step > seen[k - 1]!.step));
    assert.equal(seen.at(-1)!.masked, 0);
  }
  assert.ok(events < count * steps, "no step was merged, so this test shows nothing");
  await pinging.close();
});
