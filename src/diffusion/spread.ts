/**
 * Order `spread`: each step reveals positions that lie apart, since neighbours that are drawn at once often
 * do not fit each other (docs/understand/sampler.md). After dilated scheduling (arXiv 2506.19037), but with
 * the places of a step drawn at random.
 */

import { type BlockSteps, blockCount, stepsOf } from "./blocks.ts";
import { type DrawKey, uniformsAt } from "./philox.ts";

/**
 * Return the step that reveals each of the `count` masked positions of a block, from the left. Of n steps
 * each reveals every n-th position; which one comes first is random.
 */
export function spreadSteps(
  { seed, sample }: Pick<DrawKey, "seed" | "sample">,
  count: number,
  { start, end }: BlockSteps,
): number[] {
  const uniforms = Array.from(
    { length: end - start },
    (_, i) => uniformsAt({ seed, sample, step: start, candidate: 0 }, i).reveal,
  );
  const ranked = uniforms.map((_, i) => i).sort((a, b) => uniforms[a]! - uniforms[b]! || a - b);
  const stepOf = new Array<number>(ranked.length);
  for (const [rank, i] of ranked.entries()) stepOf[i] = start + rank;
  return Array.from({ length: count }, (_, i) => stepOf[i % stepOf.length]!);
}

/**
 * Return the step of `steps` that reveals each of the `masked` positions, whose blocks have `blockLength`
 * positions each.
 */
export function spread(
  { seed, sample, steps }: Pick<DrawKey, "seed" | "sample"> & { steps: number },
  masked: readonly number[],
  blockLength: number,
): ReadonlyMap<number, number> {
  const blocks = blockCount(masked.length, blockLength);
  const stepOf = Array.from({ length: blocks }, (_, block) => {
    const count = Math.min(blockLength, masked.length - block * blockLength);
    return spreadSteps({ seed, sample }, count, stepsOf(block, steps, blocks));
  }).flat();
  return new Map(masked.map((position, i) => [position, stepOf[i]!]));
}
