/** Finds the knee: the highest rate at which p99 stays within a limit and the server keeps up. */

import { spread } from "../report/summary.ts";
import type { Knee, Measurement, PlannedCell } from "../report/types.ts";
import { type LadderPlan, servedCell } from "./plan.ts";

/** The lowest rate over the closed loop's throughput, and the most rungs. */
const [FIRST, MOST] = [0.5, 8];
/** Default ratio of a rate to the one below it. */
const RISE = 1.25;

/** The rates of one shape, lowest first. */
export class Ladder {
  readonly rungs: { cell: PlannedCell; rate: number; held: Map<number, boolean> }[] = [];

  constructor(
    readonly plan: LadderPlan,
    readonly limitMs: number,
  ) {}

  /**
   * Add the first rung. `capacity` is the requests a second of a closed loop; unused if the plan has rates.
   */
  begin(capacity: number): void {
    const rates = this.plan.rates ?? [FIRST * capacity];
    for (const rate of rates) this.#add(rate);
  }

  #add(rate: number): void {
    const rounded = Number(rate.toPrecision(3));
    const cell = servedCell(this.plan.transport, { kind: "open", rate: rounded }, [this.plan.shape]);
    this.rungs.push({ cell, rate: rounded, held: new Map() });
  }

  /** Return whether this repeat has a rung `index`; add one if the last rung held. */
  has(index: number, repeat: number): boolean {
    if (index < this.rungs.length) return true;
    const top = this.rungs.at(-1);
    if (this.plan.rates || !top?.held.get(repeat) || this.rungs.length >= MOST) return false;
    this.#add(top.rate * (this.plan.rise ?? RISE));
    return true;
  }

  /** Record the measurement of a rung. */
  take(index: number, { repeat, kept_up, times_ms }: Measurement): void {
    const p99 = times_ms.latency?.p99 ?? Number.POSITIVE_INFINITY;
    this.rungs[index]!.held.set(repeat, kept_up === true && p99 <= this.limitMs);
  }

  /** Return the knee; undefined before the first measurement. */
  knee(): Knee | undefined {
    const repeats = [...new Set(this.rungs.flatMap(({ held }) => [...held.keys()]))];
    if (repeats.length === 0) return undefined;
    const highest = repeats.map((repeat) =>
      Math.max(0, ...this.rungs.filter(({ held }) => held.get(repeat)).map(({ rate }) => rate)),
    );
    const { shape, transport } = this.plan;
    return {
      shape,
      transport,
      requests_per_second: spread(highest),
      repeats: highest,
      reached: repeats.every((repeat) => this.rungs.some(({ held }) => held.get(repeat) === false)),
    };
  }
}
