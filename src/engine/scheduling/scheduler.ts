/**
 * Decides which batches to start: a pure function from the rows that wait to plain descriptions of batches.
 *
 * Fair by attained service: the row that has had the least so far goes first, and takes along those that can
 * share its batch. Rows that have had clearly more come along only as far as that costs the first next to
 * nothing: a short request is not slowed down by long ones. A new row starts a little behind the others
 * (`startOf`), and a row that was passed over for two rounds goes first, so neither a stream of newcomers nor
 * an old hand can starve the other.
 */

import type { GraphName } from "../../runtime/protocol.ts";

/** What the scheduler needs to know of a row that waits for a pass. */
export interface SchedulableRow {
  /** Graph of the pass: rows of one batch share it. */
  readonly graph: GraphName;
  /** Padded canvas length: rows of one batch share it. A function of the row's own request. */
  readonly padded: number;
  /** Canvases the row takes in the batch. */
  readonly width: number;
  /** Padded tokens that have gone through the model for this row, plus where it started. */
  readonly attained: number;
  /** Batches that were started without it since its last one. */
  readonly passedOver: number;
  /** Its deadline has come: it goes before the others. */
  readonly urgent: boolean;
  /** Rows that its batch may hold at most: fewer after a batch of it failed, to find the row at fault. */
  readonly company: number;
}

/** Bounds of one batch, in padded tokens (canvases x padded length). */
export interface BatchLimits {
  /** A batch holds no more, but a single row may. */
  maxTokens: number;
  /** Up to here a batch takes hardly longer than the smallest. */
  lightTokens: number;
  /** Smallest part of a batch that is worth a worker of its own. */
  spreadTokens: number;
}

/** Steps by which a new row starts behind. */
const HEAD_START = 8;
/** Rows within so many steps of each other have had the same. */
const LEVEL = 4;
/** A row that was passed over by so many batches for each row goes first. */
const PATIENCE = 2;

/** Lengths are padded to a multiple of this. */
export const LENGTH_CLASS = 32;

/**
 * Padded length of a canvas: rounded up, within the context. It depends on nothing but the row's own
 * request, because padding changes how sums are blocked and so the last bits of the result.
 */
export function paddedLength(length: number, context: number): number {
  return Math.min(Math.ceil(length / LENGTH_CLASS) * LENGTH_CLASS, context);
}

/** Where the attained service of a new row starts, when the least served of the others stands at `clock`. */
export function startOf(padded: number, clock: number): number {
  return clock - HEAD_START * padded;
}

/**
 * Return the batches to start now, each as its rows: at most one for each free worker, the most pressing
 * first.
 *
 * Urgent rows come first, then those that have waited too long, then by attained service. If there are more
 * free workers than batches, the largest batches are divided evenly, since work that a free worker takes is
 * done sooner; but not into parts of fewer than `limits.spreadTokens`, which would take about as long as the
 * whole.
 *
 * @param rows that wait for a pass
 * @param freeWorkers workers that would begin a batch at once
 */
export function schedule<Row extends SchedulableRow>(
  rows: readonly Row[],
  limits: BatchLimits,
  freeWorkers: number,
): Row[][] {
  const starved = (row: Row) => row.passedOver > PATIENCE * rows.length;
  let waiting = rows.toSorted(
    (a, b) =>
      Number(b.urgent) - Number(a.urgent) ||
      Number(starved(b)) - Number(starved(a)) ||
      a.attained - b.attained,
  );
  const batches: Row[][] = [];
  while (batches.length < freeWorkers && waiting.length > 0) {
    const batch = fill(waiting, limits, starved);
    batches.push(batch);
    const taken = new Set(batch);
    waiting = waiting.filter((row) => !taken.has(row));
  }
  return spread(batches, limits, freeWorkers);
}

/** Return the rows that share a batch with the first one. */
function fill<Row extends SchedulableRow>(
  inOrder: readonly Row[],
  { maxTokens, lightTokens }: BatchLimits,
  starved: (row: Row) => boolean,
): Row[] {
  const first = inOrder[0]!;
  const batch: Row[] = [];
  let tokens = 0;
  let company = first.company;
  for (const row of inOrder) {
    if (row.graph !== first.graph || row.padded !== first.padded) continue;
    tokens += row.width * row.padded;
    company = Math.min(company, row.company);
    const level = row.attained <= first.attained + LEVEL * row.padded;
    const most = level || starved(row) ? maxTokens : Math.min(maxTokens, lightTokens);
    if (batch.length > 0 && (tokens > most || batch.length >= company)) break;
    batch.push(row);
  }
  return batch;
}

/** Divide batches, the largest parts first, until every free worker has one or all parts are small. */
function spread<Row extends SchedulableRow>(
  batches: readonly Row[][],
  { spreadTokens }: BatchLimits,
  freeWorkers: number,
): Row[][] {
  const tokens = batches.map((batch) => batch.reduce((sum, row) => sum + row.width * row.padded, 0));
  const parts = batches.map(() => 1);
  const canDivide = (i: number) =>
    parts[i]! < batches[i]!.length && tokens[i]! / (parts[i]! + 1) >= spreadTokens;
  for (let free = freeWorkers - batches.length; free > 0; free--) {
    const [largest] = [...batches.keys()]
      .filter(canDivide)
      .toSorted((a, b) => tokens[b]! / parts[b]! - tokens[a]! / parts[a]!);
    if (largest === undefined) break;
    parts[largest]!++;
  }
  return batches.flatMap((batch, i) => {
    const start = (part: number) => Math.round((part * batch.length) / parts[i]!);
    return Array.from({ length: parts[i]! }, (_, part) => batch.slice(start(part), start(part + 1)));
  });
}
