/** Attacks over WebSockets: clients that do not read, floods, and clients without a key. */

import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { constants, deflateRawSync } from "node:zlib";
import { TestKeys } from "../server/access/support.ts";
import type { TestServer } from "../support/server.ts";
import { attack, BOUNDS, flood, isQuick, openSocket, startVictim, WIDE } from "./support.ts";
import type { Watched } from "./watch.ts";

let victim: TestServer;
let guarded: TestServer;
let keys: TestKeys;
before(async () => {
  keys = await TestKeys.create({ alice: {} });
  victim = await startVictim("--log-level", "warn");
  guarded = await startVictim("--log-level", "warn", "--api-keys", keys.path);
});
after(() => Promise.all([victim.stop(), guarded.stop()]));

function holds(seen: Watched): void {
  isQuick(seen);
  const { rss } = seen;
  assert.ok(rss.most - rss.before < BOUNDS.memoryMb, `${rss.most - rss.before} MB`);
}

test("a client that reads nothing and sends small messages does not increase memory", async () => {
  await attack(
    "small messages, nothing read",
    victim,
    async () => {
      const socket = await openSocket(victim);
      socket.pause();
      const small = JSON.stringify({ type: "cancel", id: "x" });
      // Unsolicited pongs must not count as reading.
      const pongs = setInterval(() => socket.pong(), 20);
      await flood(socket, small, 8000);
      clearInterval(pongs);
      socket.terminate();
    },
    holds,
  );
});

test("a client that reads everything and floods does not delay the others", async () => {
  await attack(
    "small messages, all read",
    victim,
    async () => {
      const socket = await openSocket(victim);
      let answers = 0;
      socket.on("message", () => answers++);
      await flood(socket, "{}", 4000);
      socket.terminate();
      assert.ok(answers > 100);
    },
    holds,
  );
});

const STRANGE: [name: string, message: string][] = [
  ["a message of 90,000 fields", WIDE],
  ["small messages", '{"type":"cancel","id":"x"}'],
];

for (const [name, message] of STRANGE)
  test(`a socket without a key costs nothing: ${name}`, async () => {
    await attack(
      `without a key, ${name}`,
      guarded,
      async () => {
        // Each client reconnects as soon as it is closed.
        const ends = performance.now() + 5000;
        const unauthenticated = async () => {
          while (performance.now() < ends) {
            const socket = await openSocket(guarded);
            const closed = once(socket, "close");
            const opened = performance.now();
            await flood(socket, message, 5000);
            const [code] = await closed;
            const lived = performance.now() - opened;
            // The end of a connection that still sends may pass the news of it on the way.
            assert.ok(code === 4401 || code === 1006, `${code}`);
            assert.ok(lived < 2500, `it lived for ${lived} ms`);
          }
        };
        await Promise.all(Array.from({ length: 4 }, unauthenticated));
      },
      (seen) => {
        holds(seen);
        assert.ok(seen.cpuSeconds < 3, `${seen.cpuSeconds} s of CPU`);
      },
    );
  });

test("a refused socket is not read any more, and is closed within a second", async () => {
  const socket = await openSocket(guarded);
  socket.send("{}");
  const said = performance.now();
  const [code] = await once(socket, "close");
  assert.equal(code, 4401);
  assert.ok(performance.now() - said < 1500, `${performance.now() - said} ms`);
});

/** A message of a mebibyte that is compressed to a kilobyte: frame, mask of zeros, and the text. */
const BOMB = (() => {
  const text = JSON.stringify({ type: "cancel", id: "0".repeat(1_048_000) });
  const compressed = deflateRawSync(text, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4);
  const head = Buffer.from([0xc1, 0xfe, 0, 0, 0, 0, 0, 0]);
  head.writeUInt16BE(compressed.length, 2);
  return Buffer.concat([head, compressed]);
})();

test("waiting compressed messages are bounded in bytes", async () => {
  await attack(
    "compressed zeros",
    guarded,
    async () => {
      const sockets = await Promise.all(
        Array.from({ length: 4 }, () =>
          openSocket(guarded, { key: keys.keys.alice!, perMessageDeflate: true }),
        ),
      );
      for (const socket of sockets)
        for (let i = 0; i < 60; i++) (socket as unknown as { _socket: Socket })._socket.write(BOMB);
      await sleep(5000);
      for (const socket of sockets) socket.terminate();
    },
    // What a key's own client sends is worked through: here memory is in question.
    ({ failed, rss }) => {
      assert.equal(failed, 0);
      // Four sockets, each with the messages that may wait and those in the decompressor.
      assert.ok(rss.most - rss.before < 100, `${rss.most - rss.before} MB`);
    },
  );
});
