/** Raw WebSocket frames (RFC 6455), right and wrong. */

import { deflateRawSync } from "node:zlib";
import type { Random } from "../traffic/random.ts";
import { bodyOf, ROUTES } from "./bodies.ts";
import { hostileValue } from "./values.ts";

/** What a frame is made of. */
interface Frame {
  fin?: boolean;
  /** Reserved bits, 4 is compression. */
  rsv?: number;
  opcode: number;
  payload: Buffer;
  masked?: boolean;
  /** The length that is said, if it is not the true one. */
  says?: bigint;
}

const [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] = [0, 1, 2, 8, 9, 10];

/** A frame as bytes. */
export function frame({ fin = true, rsv = 0, opcode, payload, masked = true, says }: Frame): Buffer {
  const size = says ?? BigInt(payload.length);
  const bit = masked ? 0x80 : 0;
  let length: Buffer;
  if (size < 126n) length = Buffer.of(bit | Number(size));
  else if (size < 65_536n) length = Buffer.of(bit | 126, Number(size >> 8n), Number(size & 255n));
  else {
    length = Buffer.alloc(9);
    length[0] = bit | 127;
    length.writeBigUInt64BE(size, 1);
  }
  // A key of zeros leaves the payload as it is.
  const key = Buffer.alloc(masked ? 4 : 0);
  return Buffer.concat([Buffer.of((fin ? 0x80 : 0) | (rsv << 4) | opcode), length, key, payload]);
}

/** Forty megabytes in forty kilobytes. */
const BOMB = deflateRawSync(Buffer.alloc(40_000_000, 0x20));

function message(random: Random): Buffer {
  if (random.chance(0.1)) return Buffer.from(hostileValue(random));
  const id = random.chance(0.8) ? '"a"' : hostileValue(random);
  const type = random.pick(['"generate"', '"generate"', '"generate"', '"cancel"', hostileValue(random)]);
  return bodyOf(random, ROUTES[0]![1], [
    ["type", type],
    ["id", id],
  ]);
}

function pieces(random: Random, payload: Buffer): Buffer[] {
  const count = random.integer(2, 6);
  const cuts = Array.from({ length: count - 1 }, () => random.integer(0, payload.length)).toSorted(
    (a, b) => a - b,
  );
  const bounds = [0, ...cuts, payload.length];
  return Array.from({ length: count }, (_, i) =>
    frame({
      fin: i === count - 1,
      opcode: i === 0 || random.chance(0.05) ? TEXT : CONTINUATION,
      payload: payload.subarray(bounds[i]!, bounds[i + 1]!),
    }),
  );
}

const WRONG: readonly ((random: Random) => Buffer)[] = [
  () => frame({ opcode: TEXT, payload: Buffer.of(0xff, 0xfe, 0xc0, 0x80) }),
  (random) => frame({ opcode: BINARY, payload: message(random) }),
  (random) => frame({ opcode: random.pick([3, 4, 5, 6, 7, 11, 12, 15]), payload: Buffer.from("x") }),
  () => frame({ opcode: TEXT, payload: Buffer.alloc(1_100_000, 0x20) }),
  () => frame({ opcode: TEXT, payload: Buffer.from("{"), says: 1n << 62n }),
  () => frame({ opcode: TEXT, payload: Buffer.from("{"), says: (1n << 64n) - 1n }),
  (random) => frame({ opcode: TEXT, rsv: random.integer(1, 7), payload: message(random) }),
  (random) => frame({ opcode: TEXT, masked: false, payload: message(random) }),
  () => frame({ opcode: PING, payload: Buffer.alloc(126) }),
  () => frame({ opcode: PING, fin: false, payload: Buffer.from("x") }),
  () => frame({ opcode: CONTINUATION, payload: Buffer.from("x") }),
  () => frame({ opcode: CLOSE, payload: Buffer.of(0x03) }),
  (random) => frame({ opcode: CLOSE, payload: Buffer.of(random.integer(0, 255), random.integer(0, 255)) }),
  () => frame({ opcode: CLOSE, payload: Buffer.of(3, 232, 0xff, 0xff) }),
  () => frame({ opcode: PONG, payload: Buffer.from("nobody asked") }),
  () => frame({ opcode: TEXT, rsv: 4, payload: BOMB }),
  () => frame({ opcode: TEXT, rsv: 4, payload: Buffer.from("not deflated") }),
];

/** What is sent after the upgrade, and whether an answer to its last frame has to come. */
export interface FrameCase {
  bytes: Buffer;
  answered: boolean;
}

/** Messages whole and in pieces, or something wrong; a ping comes last. */
export function frameCase(random: Random): FrameCase {
  const parts: Buffer[] = [];
  let answered = true;
  for (let count = random.integer(1, 3); count > 0; count--) {
    const way = random.integer(0, 15);
    if (way === 0) {
      // It may say that it is longer than it is; then the ping is a part of it.
      parts.push(Buffer.from(Array.from({ length: random.integer(1, 100) }, () => random.integer(0, 255))));
      answered = false;
    } else if (way < 8) parts.push(random.pick(WRONG)(random));
    else if (way < 12) parts.push(...pieces(random, message(random)));
    else parts.push(frame({ opcode: TEXT, payload: message(random) }));
  }
  return {
    bytes: Buffer.concat([...parts, frame({ opcode: PING, payload: Buffer.from("alive?") })]),
    answered,
  };
}
