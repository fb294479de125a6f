/** Runs a plan: every cell once in each repeat, until the repeats or the time are used up. */

import { summarise } from "../report/summary.ts";
import type { Cell, Knee, Measurement, PlannedCell } from "../report/types.ts";
import type { Amount, Side } from "../servers/side.ts";
import { Recorder } from "../traffic/recorder.ts";
import { Seeds } from "../traffic/traffic.ts";
import { Ladder } from "./ladder.ts";
import { measure } from "./measure.ts";
import type { Plan } from "./plan.ts";
import { type Pending, share } from "./share.ts";

/** Bounds and settings of a run. */
export interface RunOptions {
  repeats: number;
  /** Latest end of a measurement, on the clock of `performance.now()`. */
  deadline: number;
  started: number;
  maxRequests: number;
  timeoutMs: number;
  p99LimitMs: number;
  seed: number;
  signal: AbortSignal;
  /** Called before each measurement. */
  onProgress: (what: string) => void;
}

/** Seconds of a measurement that are not load. */
const OVERHEAD = 0.08;
/** Shortest measurement of a closed loop in seconds, if a round is shorter. */
const SHORTEST = 0.3;
/** Time of a rung relative to a cell of the closed loop: p99 needs many requests. */
const RUNG_WEIGHT = 3;
/** Assumed number of rungs of a ladder before it is climbed. */
const RUNGS_EXPECTED = 5;
/** Fewest arrivals of a rung, and fewest seconds. */
const [ARRIVALS, RUNG_SECONDS] = [16, 1];

/** Return the shortest duration of a rung in seconds. */
const shortest = (rate: number) => Math.max(RUNG_SECONDS, ARRIVALS / rate);

/** Measures a plan. */
export class Run {
  readonly #kept = new Map<string, { cell: PlannedCell; measurements: Measurement[]; all: Recorder }>();
  /** Seconds of the last round of each cell. */
  readonly #roundSeconds = new Map<string, number>();
  readonly #ladders: Ladder[];
  readonly #seeds: Seeds;
  /** Planned measurements that are missing. */
  leftOut = 0;
  readonly warnings: string[] = [];

  /** `peerCells` are measured next to the server's cells with the same number of clients. */
  constructor(
    readonly sides: ReadonlyMap<string, Side>,
    readonly plan: Plan,
    readonly peerCells: readonly PlannedCell[],
    readonly options: RunOptions,
  ) {
    this.#seeds = new Seeds(options.seed);
    this.#ladders = plan.ladders.map((ladder) => new Ladder(ladder, options.p99LimitMs));
  }

  /**
   * Return the cells of the closed loop; a peer's cell follows the first server cell that it is compared
   * with.
   */
  #closedCells(): PlannedCell[] {
    const left = new Set(this.peerCells);
    const beside = (cell: PlannedCell) =>
      [...left].filter(({ load, shapes: [shape] }) => {
        const [own] = cell.shapes;
        const same =
          load.kind === "closed" && cell.load.kind === "closed" && load.clients === cell.load.clients;
        return (
          same && (shape!.steps === undefined || shape!.steps === own!.steps) && shape!.length === own!.length
        );
      });
    const ordered = this.plan.cells.flatMap((cell) => {
      const peers = beside(cell);
      for (const peer of peers) left.delete(peer);
      return [cell, ...peers];
    });
    return [...ordered, ...left];
  }

  /** Run to the end, the deadline or the signal. Rejects if the server fails. */
  async go(): Promise<void> {
    const { repeats, signal } = this.options;
    const closed = this.#closedCells();
    for (const cell of closed) await this.#warmUp(cell);
    for (let repeat = 0; repeat < repeats && !signal.aborted; repeat++) {
      // Every second repeat runs backwards, so that a drift of the machine's speed affects all cells alike.
      const order = repeat % 2 === 0 ? closed : closed.toReversed();
      for (const [i, cell] of order.entries()) await this.#closed(cell, repeat, order.slice(i), closed);
      if (repeat >= this.plan.climbs) continue;
      for (const [i, ladder] of this.#ladders.entries()) await this.#climb(ladder, repeat, i, closed);
    }
    if (signal.aborted) this.leftOut = Math.max(1, this.leftOut);
  }

  #alive(cell: PlannedCell): Side | undefined {
    const side = this.sides.get(cell.side);
    return side?.info.left_out === undefined ? side : undefined;
  }

  /** Run one round of each client and discard it. */
  async #warmUp(cell: PlannedCell): Promise<void> {
    if (this.options.signal.aborted || this.#late(0)) return;
    this.options.onProgress(`warming up: ${cell.id}`);
    const taken = await this.#measure(cell, { rounds: 1 }, 0);
    if (taken) this.#roundSeconds.set(cell.id, taken.measurement.seconds);
  }

  #late(seconds: number): boolean {
    return performance.now() + seconds * 1000 > this.options.deadline;
  }

  /** Return the remaining measurements: closed cells and rungs of this repeat, and all of later repeats. */
  #pending(
    repeat: number,
    cells: readonly PlannedCell[],
    rungs: readonly Pending[],
    closed: readonly PlannedCell[],
  ): Pending[] {
    const cell = ({ id }: PlannedCell) => ({
      weight: 1,
      floor: Math.max(this.#roundSeconds.get(id) ?? 0, SHORTEST) + OVERHEAD,
    });
    const times = <T>(count: number, items: readonly T[]) =>
      Array.from({ length: Math.max(0, count) }, () => items).flat();
    const later = times(this.options.repeats - repeat - 1, closed).map(cell);
    const climbs = this.#ladders.flatMap((ladder) => this.#rungs(ladder));
    return [
      ...cells.map(cell),
      ...rungs,
      ...later,
      ...times(Math.min(this.plan.climbs, this.options.repeats) - repeat - 1, climbs),
    ];
  }

  /** Return the known or assumed rungs of one climb, from number `from` on. */
  #rungs({ rungs, plan }: Ladder, from = 0): Pending[] {
    const count = Math.max(rungs.length, plan.rates?.length ?? RUNGS_EXPECTED) - from;
    const floor = OVERHEAD + (rungs[0] ? shortest(rungs[0].rate) : RUNG_SECONDS);
    return Array.from({ length: Math.max(1, count) }, () => ({ weight: RUNG_WEIGHT, floor }));
  }

  #unit(pending: readonly Pending[]): number {
    return share((this.options.deadline - performance.now()) / 1000, pending);
  }

  async #closed(
    cell: PlannedCell,
    repeat: number,
    rest: readonly PlannedCell[],
    closed: readonly PlannedCell[],
  ): Promise<void> {
    if (cell.load.kind !== "closed" || !this.#alive(cell)) return;
    const round = this.#roundSeconds.get(cell.id) ?? 1;
    if (this.options.signal.aborted || this.#late(round) || this.#requestsLeft() < cell.load.clients) {
      this.leftOut++;
      return;
    }
    this.options.onProgress(cell.id);
    const rungs = repeat < this.plan.climbs ? this.#ladders.flatMap((ladder) => this.#rungs(ladder)) : [];
    const seconds = this.#unit(this.#pending(repeat, rest, rungs, closed)) - OVERHEAD;
    const most = Math.floor(this.#requestsLeft() / cell.load.clients);
    const rounds = Math.min(most, Math.max(1, Math.round(Math.max(seconds, SHORTEST) / round)));
    const taken = await this.#measure(cell, { rounds }, repeat);
    if (!taken || this.options.signal.aborted) return;
    this.#keep(cell, taken);
    this.#roundSeconds.set(cell.id, taken.measurement.seconds / rounds);
  }

  #requestsLeft(): number {
    return this.options.maxRequests - this.#seeds.used;
  }

  async #climb(
    ladder: Ladder,
    repeat: number,
    number: number,
    closed: readonly PlannedCell[],
  ): Promise<void> {
    if (ladder.rungs.length === 0) {
      const capacity = this.#capacity(ladder);
      if (capacity === undefined && !ladder.plan.rates) {
        this.leftOut++;
        return;
      }
      ladder.begin(capacity ?? 0);
    }
    for (let index = 0; ladder.has(index, repeat); index++) {
      const { cell, rate } = ladder.rungs[index]!;
      const later = this.#ladders.slice(number + 1).flatMap((other) => this.#rungs(other));
      const unit = this.#unit(this.#pending(repeat, [], [...this.#rungs(ladder, index), ...later], closed));
      const wanted = Math.max(RUNG_WEIGHT * unit - OVERHEAD, shortest(rate));
      const seconds = Math.min(wanted, this.#requestsLeft() / rate);
      if (this.options.signal.aborted || seconds * rate < ARRIVALS / 2 || this.#late(seconds)) {
        this.leftOut++;
        return;
      }
      this.options.onProgress(cell.id);
      const taken = await this.#measure(cell, { seconds }, repeat);
      if (!taken || this.options.signal.aborted) return;
      this.#keep(cell, taken);
      ladder.take(index, taken.measurement);
    }
  }

  /** Return the most requests a second of a closed loop of this shape. */
  #capacity({ plan }: Ladder): number | undefined {
    const rates = [...this.#kept.values()]
      .filter(({ cell }) => cell.side === "server" && cell.load.kind === "closed")
      .filter(({ cell }) => cell.shapes.length === 1 && cell.shapes[0]!.name === plan.shape.name)
      .flatMap(({ measurements }) => measurements.map((m) => m.requests_per_second))
      .filter((rate) => rate > 0);
    return rates.length > 0 ? Math.max(...rates) : undefined;
  }

  /** Measure a cell; return undefined if the side is a failed peer, which is then left out. */
  async #measure(cell: PlannedCell, amount: Amount, repeat: number) {
    const side = this.#alive(cell);
    if (!side) return undefined;
    const { signal, timeoutMs, started } = this.options;
    try {
      const job = { cell, amount, seeds: this.#seeds, signal, timeoutMs };
      const taken = await measure(side, job, repeat, started);
      const { requests, errors } = taken.measurement;
      if (requests === 0 && errors.connection && !signal.aborted)
        throw new Error(`${side.info.title} does not answer any more`);
      return taken;
    } catch (error) {
      // A Ctrl-C in a terminal reaches the peers too.
      if (signal.aborted) return undefined;
      if (cell.side === "server") throw error;
      side.info.left_out = (error as Error).message;
      this.warnings.push(`${side.info.title}: ${side.info.left_out}`);
      return undefined;
    }
  }

  #keep(
    cell: PlannedCell,
    { measurement, recorder }: { measurement: Measurement; recorder: Recorder },
  ): void {
    const kept = this.#kept.get(cell.id) ?? { cell, measurements: [], all: new Recorder() };
    this.#kept.set(cell.id, kept);
    kept.measurements.push(measurement);
    kept.all.add(recorder);
  }

  /** Return the measured cells. */
  cells(): Cell[] {
    return [...this.#kept.values()].map(({ cell, measurements, all }) => ({
      ...cell,
      measurements,
      summary: summarise(measurements, all),
    }));
  }

  knees(): Knee[] {
    return this.#ladders.map((ladder) => ladder.knee()).filter((knee) => knee !== undefined);
  }
}
