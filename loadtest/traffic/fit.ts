/** Throughput against replicas, from the cost of a batch and of a row (docs/operate/scaling.md). */

/** Milliseconds of a batch without rows, and of each row in it. */
export interface BatchCost {
  a: number;
  b: number;
}

/** What each request asks for. */
interface Shape {
  length: number;
  steps: number;
}

/** Fit the costs by least squares: 1/T = (a + b r) / (L r) over one replica with r clients. */
export function fitBatch(
  { length, steps }: Shape,
  clients: readonly number[],
  tokensPerSecond: readonly number[],
): BatchCost {
  // Seconds of a round of r requests: r L / T = a S + b S r.
  const times = clients.map((r, i) => (r * length) / tokensPerSecond[i]!);
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
  const [mr, mt] = [mean(clients), mean(times)];
  const slope =
    clients.reduce((sum, r, i) => sum + (r - mr) * (times[i]! - mt), 0) /
    clients.reduce((sum, r) => sum + (r - mr) ** 2, 0);
  const perStep = 1000 / steps;
  return { a: (mt - slope * mr) * perStep, b: slope * perStep };
}

/** Return tokens a second of `replicas` with `clients` in all. */
export const throughput = (
  { a, b }: BatchCost,
  { length, steps }: Shape,
  replicas: number,
  clients: number,
) => (clients * length * 1000) / (steps * (a + (b * clients) / replicas));
