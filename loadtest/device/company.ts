/** What holds of determinism: the same row alone, in company, and elsewhere in a batch of the same size. */

import type { Engine } from "../../src/engine/engine.ts";
import type { Model } from "../../src/model/model.ts";
import type { WorkerPool } from "../../src/runtime/pool.ts";
import type { DenoiseResult } from "../../src/runtime/protocol.ts";
import { Differences, type Found } from "./agreement.ts";
import { loopOn, plainBatch, rowsOf } from "./batches.ts";

const say = ({ bits, share, logprob }: Differences) =>
  bits
    ? "equal bit for bit"
    : `${(100 * share).toFixed(1)}% of tokens equal, log-probabilities within ${logprob.toExponential(1)}`;

/** Compare a row's result in batches of 1 to `most` rows, and at three places of the largest batch. */
export async function rowInCompany(
  model: Model,
  pool: Pick<WorkerPool, "run">,
  length: number,
  most: number,
): Promise<Found> {
  const { run } = loopOn(pool);
  const rows = rowsOf(model, length, most);
  const draws = rows[0]!.plan.candidates[0]!.positions.length;
  /** Run the first row at a place among others; return its part of the result. */
  const at = async (count: number, place: number, from = 1): Promise<DenoiseResult> => {
    const others = [...rows.slice(from), ...rows.slice(1, from)].slice(0, count - 1);
    const batch = plainBatch([...others.slice(0, place), rows[0]!, ...others.slice(place)]);
    const result = (await run(batch)) as DenoiseResult;
    const { token, logprob, entropy } = result;
    const [start, end] = [place * draws, (place + 1) * draws];
    return {
      ...result,
      token: token.slice(start, end),
      logprob: logprob.slice(start, end),
      entropy: entropy.slice(start, end),
    };
  };
  const compare = (base: DenoiseResult, others: readonly DenoiseResult[]) => {
    const seen = new Differences();
    for (const other of others) seen.add(base, other);
    return seen;
  };
  const alone = await at(1, 0);
  const again = compare(alone, [await at(1, 0)]);
  const sizes = [2, 3, 8, 64].filter((count) => count <= most);
  const bySize: Differences[] = [];
  for (const count of sizes) bySize.push(compare(alone, [await at(count, 0)]));
  const full = await at(most, 0);
  const places = compare(full, [
    await at(most, most >> 1),
    await at(most, most - 1, 2),
    await at(most, 0, 3),
  ]);
  return {
    found:
      `the same batch again: ${say(again)}; alone against ` +
      `${sizes.map((count, i) => `${count} rows: ${say(bySize[i]!)}`).join(", ")}; ` +
      `other places and neighbours among ${most} rows: ${say(places)}`,
    figures: {
      again: again.bits,
      places: places.bits,
      ...Object.fromEntries(sizes.map((count, i) => [`rows_${count}`, bySize[i]!.bits])),
    },
  };
}

/** Run requests with a seed alone and then all at once through an engine; compare their tokens. */
export async function requestInCompany(engine: Engine, length: number, count: number): Promise<Found> {
  const tokens = async (seed: number) => {
    const answer = await engine.submit({ prompt: "", length, steps: 8, seed }).result;
    return answer.samples[0]!.tokens.join();
  };
  const seeds = Array.from({ length: count }, (_, seed) => seed);
  const alone: string[] = [];
  for (const seed of seeds) alone.push(await tokens(seed));
  const together = await Promise.all(seeds.map(tokens));
  const equal = together.filter((text, seed) => text === alone[seed]).length;
  return {
    found: `${equal} of ${count} requests have the same tokens alone and all at once`,
    figures: { requests: count, equal },
  };
}
