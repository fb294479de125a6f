/**
 * Philox4x32-10, a counter-based random number generator (Salmon et al. 2011, "Parallel Random Numbers: As
 * Easy as 1, 2, 3").
 *
 * A uniform is a pure function of (seed, sample, step, candidate, position), so a sample does not depend on
 * the other rows of its batch. The layout of the counter is documented in docs/understand/sampler.md and must
 * not change.
 */

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** Four 32-bit words. */
export type Block = [number, number, number, number];

/** Return the high 32 bits of the product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const cross = aHigh * bLow + ((aLow * bLow) >>> 16);
  const middle = aLow * bHigh + (cross & 0xffff);
  return (aHigh * bHigh + Math.floor(cross / 0x10000) + Math.floor(middle / 0x10000)) >>> 0;
}

/** Return the block of a counter (four 32-bit words) under a key (two words), after ten rounds. */
export function philox4x32(counter: Readonly<Block>, key: readonly [number, number]): Block {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(M0, c0);
    const high1 = multiplyHigh(M1, c2);
    const low0 = Math.imul(M0, c0) >>> 0;
    const low1 = Math.imul(M1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** What the uniforms of a step depend on, besides the position. */
export interface DrawKey {
  /** Integer in [0, 2^53). */
  seed: number;
  /** Index of the sample in the request, from 0. */
  sample: number;
  /** Index of the step, from 0. */
  step: number;
  /** Index of the candidate of a re-ranked step, from 0. */
  candidate: number;
}

/** The two uniforms of a position in a step. */
export interface PositionUniforms {
  /** Decides whether the position is revealed. */
  reveal: number;
  /** Chooses the token by inverse CDF. */
  draw: number;
}

/** Map a word to an odd multiple of 2^-24 in (0, 1), which is exact in float32. */
function toUniform(word: number): number {
  return ((word >>> 9) + 0.5) * 2 ** -23;
}

function blockAt(key: DrawKey, position: number): Block {
  return philox4x32(
    [position, key.step, key.sample, key.candidate],
    [key.seed >>> 0, Math.floor(key.seed / 2 ** 32)],
  );
}

/** Return the uniforms of one position of the canvas. */
export function uniformsAt(key: DrawKey, position: number): PositionUniforms {
  const [w0, w1] = blockAt(key, position);
  return { reveal: toUniform(w0), draw: toUniform(w1) };
}

/**
 * Return the uniform in (0, 1) for the choice among candidates: the third word of position 0, candidate 0.
 */
export function chooseUniform(key: Omit<DrawKey, "candidate">): number {
  return toUniform(blockAt({ ...key, candidate: 0 }, 0)[2]);
}

/** Return the uniform in (0, 1) of decision number `decision` of the choices of a request. */
export function choiceUniform(seed: number, decision: number): number {
  // No budget has so many steps.
  return chooseUniform({ seed, sample: 0, step: 0xffffffff - decision });
}

/**
 * Return the uniform in (0, 1) that decides whether a revealed position is masked again: the fourth word of
 * the position, candidate 0.
 */
export function remaskUniform(key: Omit<DrawKey, "candidate">, position: number): number {
  return toUniform(blockAt({ ...key, candidate: 0 }, position)[3]);
}
