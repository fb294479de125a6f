/** Compare the results of a device with those of the CPU in float32, batch by batch. */

import type { Precision } from "../../src/model/manifest.ts";
import type { WorkerPool } from "../../src/runtime/pool.ts";
import { loopOn, type Recorded, type Result } from "./batches.ts";
import type { Check } from "./report.ts";

/**
 * Tolerances: the largest difference of a log-probability or an entropy, and the least share of equal tokens
 * among the likely ones.
 */
const TOLERANCE: Record<Precision, { nats: number; equal: number }> = {
  fp32: { nats: 0.002, equal: 0.995 },
  fp16: { nats: 0.1, equal: 0.95 },
  int8: { nats: 2, equal: 0.8 },
};
/**
 * Log-probability from which a drawn token is likely. A draw finds its token in a sum of probabilities, whose
 * rounding moves it to a neighbour the more easily the less likely the token is.
 */
const LIKELY = Math.log(0.01);
/** Least share of equal tokens among all, which only excludes another distribution. */
const LEAST = 0.5;

/** Sums of differences between two sides. */
export class Differences {
  tokens = 0;
  equal = 0;
  likely = 0;
  likelyEqual = 0;
  /** Largest difference of log-probabilities of equal tokens, nats. */
  logprob = 0;
  entropy = 0;
  reward = 0;
  /** True while every number has the same bits. */
  bits = true;

  /** Compare two results of the same batch. */
  add(a: Result, b: Result): void {
    if ("token" in a && "token" in b) {
      for (const [i, token] of a.token.entries()) {
        const same = token === b.token[i];
        const likely = a.logprob[i]! >= LIKELY;
        this.tokens++;
        if (same) this.equal++;
        if (likely) this.likely++;
        if (likely && same) this.likelyEqual++;
        this.bits &&= same && a.logprob[i] === b.logprob[i];
        if (same) this.logprob = Math.max(this.logprob, Math.abs(a.logprob[i]! - b.logprob[i]!));
      }
      this.entropy = Math.max(this.entropy, ...a.entropy.map((value, i) => Math.abs(value - b.entropy[i]!)));
      this.bits &&= this.entropy === 0;
    }
    if ("reward" in a && "reward" in b)
      this.reward = Math.max(this.reward, ...a.reward.map((value, i) => Math.abs(value - b.reward[i]!)));
    this.bits &&= this.reward === 0;
  }

  /** Share of equal tokens. */
  get share(): number {
    return this.tokens === 0 ? 1 : this.equal / this.tokens;
  }
}

export type Found = Pick<Check, "found" | "holds" | "figures">;

/** Run recorded batches on a device and compare. */
export async function agreement(
  pool: Pick<WorkerPool, "run">,
  recorded: readonly Recorded[],
  precision: Precision,
): Promise<Found> {
  const { run } = loopOn(pool);
  const seen = new Differences();
  for (const { batch, result } of recorded) seen.add(result, await run(batch));
  const { nats, equal } = TOLERANCE[precision];
  const percent = (share: number) => `${(100 * share).toFixed(2)}%`;
  const off = Math.max(seen.logprob, seen.entropy);
  const likely = seen.likely === 0 ? 1 : seen.likelyEqual / seen.likely;
  return {
    found:
      `equal: ${seen.likely === 0 ? "-" : percent(likely)} of ${seen.likely} tokens of at least 1% ` +
      `(at least ${percent(equal)}), ` +
      `${percent(seen.share)} of all ${seen.tokens} (${percent(LEAST)}); log-probabilities and entropies ` +
      `within ${off.toExponential(1)} nats (at most ${nats}); rewards ${seen.reward.toExponential(1)}`,
    holds: likely >= equal && seen.share >= LEAST && off <= nats,
    figures: {
      tokens: seen.tokens,
      equal: seen.share,
      likely_equal: likely,
      logprob: seen.logprob,
      entropy: seen.entropy,
      reward: seen.reward,
    },
  };
}
