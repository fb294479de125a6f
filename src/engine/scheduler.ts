/**
 * Decides what runs next. One pure function: rows in, a plain description of one call out.
 *
 * Fair by attained service: the row that has had the least so far goes first, and takes along
 * those that can share its call. A new row starts level with the least served row that is active,
 * so neither a stream of newcomers nor an old hand can starve the other.
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
  /** Its deadline has come: it goes before the others. */
  readonly urgent: boolean;
}

/** Bounds of one call. */
export interface BatchLimits {
  /** Padded tokens (canvases x padded length); a single row may exceed it. */
  maxTokens: number;
}

/** Lengths are padded to a multiple of this. */
export const LENGTH_CLASS = 32;

/**
 * Padded length of a canvas: rounded up, within the context. It depends on nothing but the row's own
 * request, because padding changes how sums are blocked and so the last bits of the result.
 */
export function paddedLength(length: number, context: number): number {
  return Math.min(Math.ceil(length / LENGTH_CLASS) * LENGTH_CLASS, context);
}

/** The rows of the next call, urgent ones first, then in order of attained service; empty when no row waits. */
export function schedule<Row extends SchedulableRow>(rows: readonly Row[], limits: BatchLimits): Row[] {
  const byService = rows.toSorted((a, b) => Number(b.urgent) - Number(a.urgent) || a.attained - b.attained);
  const first = byService[0];
  if (!first) return [];
  const batch: Row[] = [];
  let tokens = 0;
  for (const row of byService) {
    if (row.graph !== first.graph || row.padded !== first.padded) continue;
    tokens += row.width * row.padded;
    if (batch.length > 0 && tokens > limits.maxTokens) break;
    batch.push(row);
  }
  return batch;
}
