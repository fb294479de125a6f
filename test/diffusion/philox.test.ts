import assert from "node:assert/strict";
import { test } from "node:test";
import { type Block, philox4x32, uniformsAt } from "../../src/diffusion/philox.ts";

// Test vectors published with Random123.
const KNOWN: { counter: Block; key: [number, number]; expected: string }[] = [
  { counter: [0, 0, 0, 0], key: [0, 0], expected: "6627e8d5 e169c58d bc57ac4c 9b00dbd8" },
  {
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    key: [0xffffffff, 0xffffffff],
    expected: "408f276d 41c83b0e a20bc7c6 6d5451fd",
  },
  {
    counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    key: [0xa4093822, 0x299f31d0],
    expected: "d16cfe09 94fdcceb 5001e420 24126ea1",
  },
];

for (const { counter, key, expected } of KNOWN)
  test(`philox4x32-10 known answer ${expected}`, () => {
    const words = philox4x32(counter, key).map((word) => word.toString(16).padStart(8, "0"));
    assert.equal(words.join(" "), expected);
  });

test("uniforms lie inside (0, 1), are exact in float32 and differ with every part of the key", () => {
  const key = { seed: 2 ** 53 - 1, sample: 3, step: 5, candidate: 2 };
  const base = uniformsAt(key, 9);
  for (const value of Object.values(base)) {
    assert.ok(value > 0 && value < 1);
    assert.equal(Math.fround(value), value);
  }
  const others = [
    uniformsAt(key, 10),
    uniformsAt({ ...key, seed: key.seed - 2 ** 32 }, 9),
    uniformsAt({ ...key, seed: key.seed - 1 }, 9),
    uniformsAt({ ...key, sample: 4 }, 9),
    uniformsAt({ ...key, step: 6 }, 9),
    uniformsAt({ ...key, candidate: 1 }, 9),
  ];
  for (const other of others) assert.notDeepEqual(other, base);
});
