/** The cost of `top_logprobs`, to the request that asks for it and to its neighbours in a batch. */

import { ratios } from "../traffic/statistics.ts";
import { interleave, range, tableHead, tableRow } from "./measure.ts";
import { generate } from "./requests.ts";

/** Alternatives that the requests ask for. */
const COUNTS = [0, 1, 20] as const;

/** Requests of one measurement, one after the other. */
const REQUESTS = 4;

let seeds = 0;

/** Return the milliseconds of one request, the mean of REQUESTS. */
async function timeOf(origin: string, length: number, steps: number, count: number): Promise<number> {
  const started = performance.now();
  for (let i = 0; i < REQUESTS; i++)
    await generate(origin, { length, steps, seed: seeds++, logprobs: true, top_logprobs: count });
  return (performance.now() - started) / REQUESTS;
}

/** Return the milliseconds of a request without alternatives beside a client that asks for `count`. */
async function timeBeside(origin: string, length: number, steps: number, count: number): Promise<number> {
  let over = false;
  const neighbour = (async () => {
    while (!over) await timeOf(origin, length, steps, count);
  })();
  const time = await timeOf(origin, length, steps, 0);
  over = true;
  await neighbour;
  return time;
}

/** Print the times of requests, alone and beside a neighbour, by the number of alternatives. */
export async function alternatives(
  origin: string,
  length: number,
  steps: readonly number[],
  repeats: number,
): Promise<void> {
  await timeBeside(origin, length, steps[0]!, 0);
  console.log(
    `\nMilliseconds of a request of ${length} tokens by its top_logprobs, and of one without beside a ` +
      `client with as many; median of ${repeats} (lowest to highest); ratios to none\n`,
  );
  tableHead("steps", "top_logprobs", "alone", "ratio", "neighbour", "ratio");
  for (const budget of steps) {
    const sides = COUNTS.flatMap((count) => [
      () => timeOf(origin, length, budget, count),
      () => timeBeside(origin, length, budget, count),
    ]);
    const times = await interleave(repeats, ...sides);
    for (const [i, count] of COUNTS.entries()) {
      const [alone, beside] = [times[2 * i]!, times[2 * i + 1]!];
      const over = (values: number[], base: number[]) => range(ratios(values, base), 2);
      tableRow(
        budget,
        count,
        range(alone, 1),
        over(alone, times[0]!),
        range(beside, 1),
        over(beside, times[1]!),
      );
    }
  }
}
