/** Compare the results of a device with those of the CPU in float32, batch by batch. */

import type { Precision } from "../../src/model/manifest.ts";
import type { WorkerPool } from "../../src/runtime/pool.ts";
import { loopOn, type Recorded, type Result } from "./batches.ts";
import type { Check } from "./report.ts";

/** Tolerances: the largest difference of a log-probability, and the least share of equal tokens. */
const TOLERANCE: Record<Precision, { nats: number; equal: number }> = {
  fp32: { nats: 0.002, equal: 0.998 },
  fp16: { nats: 0.1, equal: 0.97 },
  int8: { nats: 2, equal: 0.85 },
};

/** Sums of differences between two sides. */
export class Differences {
  tokens = 0;
  equal = 0;
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
        this.tokens++;
        const same = token === b.token[i];
        if (same) this.equal++;
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
  return {
    found:
      `${percent(seen.share)} of ${seen.tokens} tokens equal (at least ${percent(equal)}); ` +
      `log-probabilities within ${seen.logprob.toExponential(1)} nats (at most ${nats}); ` +
      `entropy ${seen.entropy.toExponential(1)}, reward ${seen.reward.toExponential(1)}`,
    holds: seen.share >= equal && seen.logprob <= nats,
    figures: {
      tokens: seen.tokens,
      equal: seen.share,
      logprob: seen.logprob,
      entropy: seen.entropy,
      reward: seen.reward,
    },
  };
}
