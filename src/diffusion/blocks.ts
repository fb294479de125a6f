/**
 * Blocks: masked positions are revealed block by block from the left, each block with its share of the step
 * budget (semi-autoregressive order, LLaDA, arXiv 2502.09992).
 */

/** The steps of one block: [start, end) of the budget. */
export interface BlockSteps {
  block: number;
  start: number;
  end: number;
}

/** Return how many blocks of `blockLength` positions a canvas with `masked` masked positions has. */
export function blockCount(masked: number, blockLength: number): number {
  return Math.ceil(masked / blockLength);
}

/**
 * Return the steps of a block: block b of B has the steps from floor(b S / B) up to, not including, floor((b
 * + 1) S / B) of a budget of S. S is at least B, so that every block has a step.
 */
export function stepsOf(block: number, steps: number, blocks: number): BlockSteps {
  const startOf = (block: number) => Math.floor((block * steps) / blocks);
  return { block, start: startOf(block), end: startOf(block + 1) };
}

/** Return the block whose steps include `step`, and its steps. */
export function blockAt(step: number, steps: number, blocks: number): BlockSteps {
  // The largest block that starts at or before the step; floor(b S / B) <= step holds up to this b.
  const block = Math.min(blocks - 1, Math.ceil(((step + 1) * blocks) / steps) - 1);
  return stepsOf(block, steps, blocks);
}
