/**
 * Decides what runs next. One pure function: rows in, a plain description of one call out.
 *
 * Fair by attained service: the row that has had the least so far goes first, and takes along those that can share its
 * call. Rows that have had clearly more come along only as far as that costs the first next to nothing: a short request
 * is not slowed down by long ones. A new row starts a little behind the others (`startOf`), and a row that was passed
 * over for two rounds goes first, so neither a stream of newcomers nor an old hand can starve the other.
 */

/** What the scheduler needs to know of a row that is waiting for a pass. */
export interface SchedulableRow {
  /** Graph of the pass: rows of one call share it. */
  readonly graph: string;
  /** Padded canvas length: rows of one call share it. A function of the row's own request. */
  readonly padded: number;
  /** Canvases the row takes in the call. */
  readonly width: number;
  /** Padded tokens that have gone through the model for this row, plus where it started. */
  readonly attained: number;
  /** Calls that were started without it since its last one. */
  readonly passedOver: number;
  /** Its deadline has come: it goes before the others. */
  readonly urgent: boolean;
}

/** Bounds of one call. */
export interface BatchLimits {
  /** Padded tokens (canvases x padded length); a single row may exceed it. */
  maxTokens: number;
  /** Padded tokens up to which a call takes hardly longer than the smallest. */
  lightTokens: number;
}

/** Steps by which a new row starts behind. */
const HEAD_START = 8;
/** Rows within so many steps of each other have had the same. */
const LEVEL = 4;
/** A row that was passed over by so many calls for each row goes first. */
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
 * The rows of the next call; empty when no row waits. Urgent ones come first, then those that have waited too long, then
 * by attained service.
 */
export function schedule<Row extends SchedulableRow>(rows: readonly Row[], limits: BatchLimits): Row[] {
  const starved = (row: Row) => row.passedOver > PATIENCE * rows.length;
  const inOrder = rows.toSorted(
    (a, b) =>
      Number(b.urgent) - Number(a.urgent) ||
      Number(starved(b)) - Number(starved(a)) ||
      a.attained - b.attained,
  );
  const first = inOrder[0];
  if (!first) return [];
  const batch: Row[] = [];
  let tokens = 0;
  for (const row of inOrder) {
    if (row.graph !== first.graph || row.padded !== first.padded) continue;
    tokens += row.width * row.padded;
    const level = row.attained <= first.attained + LEVEL * row.padded;
    const most = level || starved(row) ? limits.maxTokens : Math.min(limits.maxTokens, limits.lightTokens);
    if (batch.length > 0 && tokens > most) break;
    batch.push(row);
  }
  return batch;
}
