/**
 * Decide which batches to start: a pure function from waiting rows to batches.
 *
 * Fair by attained service: the row with the least service so far goes first and takes along rows that can
 * share its batch. Rows with clearly more service join only while the batch stays light, so that long
 * requests do not slow a short one. A new row starts a little behind the others (`startOf`), and a row that
 * was passed over for two rounds goes first, so neither newcomers nor long requests can starve.
 */

import type { GraphName } from "../../runtime/protocol.ts";

/** What the scheduler needs to know of a row that waits for a pass. */
export interface SchedulableRow {
  /** Graph of the pass: rows of one batch share it. */
  readonly graph: GraphName;
  /** Padded canvas length: rows of one batch share it. Depends only on the row's own request. */
  readonly padded: number;
  /** Canvases of the row in the batch. */
  readonly width: number;
  /** Attained service: token passes so far, plus the value it started with. */
  readonly attained: number;
  /** Batches started without it since its last one. */
  readonly passedOver: number;
  /** True once its deadline has come: it goes first. */
  readonly urgent: boolean;
  /** Upper bound of rows in its batch. Halved when a batch of it fails, to find the row at fault. */
  readonly maxRows: number;
}

/** Bounds of one batch in padded tokens: canvases times padded length. */
export interface BatchLimits {
  /** Upper bound of a batch of several rows. */
  maxTokens: number;
  /** Up to this size a batch takes hardly longer than the smallest one. */
  lightTokens: number;
  /** Smallest part of a batch that is worth a worker of its own. */
  spreadTokens: number;
  /** Tokens of batches that did not fit into the memory, by padded length. */
  tooMany?: ReadonlyMap<number, number>;
}

/** Steps of service by which a new row starts behind. */
const HEAD_START = 8;
/** Rows within this many steps of service are treated as equal. */
const LEVEL = 4;
/** A row that was passed over by this many batches for each waiting row goes first. */
const PATIENCE = 2;

/** Canvas lengths are padded to a multiple of this. */
const LENGTH_CLASS = 32;
/** Beyond 16 of them, each doubling has this many padded lengths, so that long rows find company. */
const PER_DOUBLING = 8;

/**
 * Return the padded length of a canvas, at most `context`: a multiple of 32 up to 512, then of 64 up to 1,024
 * and so on, an eighth more at most. It must depend on the row's own request alone, because padding changes
 * how sums are blocked and so the last bits of a result.
 */
export function paddedLength(length: number, context: number): number {
  const doubling = 2 ** Math.floor(Math.log2(Math.max(1, length - 1)));
  const size = Math.max(LENGTH_CLASS, doubling / PER_DOUBLING);
  return Math.min(Math.ceil(length / size) * size, context);
}

/**
 * Return the most tokens in a batch of rows of a padded length: half of those that did not fit into the
 * memory at this length or a shorter one, since attention takes more for each token of a longer row.
 */
export function mostTokens({ maxTokens, tooMany }: BatchLimits, padded: number): number {
  const halves = [...(tooMany ?? [])].flatMap(([length, tokens]) => (length <= padded ? [tokens / 2] : []));
  return Math.min(maxTokens, ...halves);
}

/** Return the limits after a batch of this many tokens did not fit into the memory. */
export function withoutMemory(limits: BatchLimits, padded: number, tokens: number): BatchLimits {
  const before = limits.tooMany?.get(padded) ?? tokens;
  return { ...limits, tooMany: new Map(limits.tooMany).set(padded, Math.min(before, tokens)) };
}

/** Return the attained service of a new row. `least` is the least attained service of the other rows. */
export function startOf(padded: number, least: number): number {
  return least - HEAD_START * padded;
}

const tokensOf = (row: SchedulableRow) => row.width * row.padded;

/**
 * Return the batches to start now, each as its rows, at most one for each free worker.
 *
 * Urgent rows go first, then starved ones, then those with the least attained service. While workers are
 * left, the largest batches are divided evenly, but not into parts of fewer than `limits.spreadTokens`, which
 * would take about as long as the whole.
 *
 * @param rows that wait for a pass
 * @param freeWorkers workers that would start a batch at once
 * @example
 * schedule([short, long], { maxTokens: 512, lightTokens: 128, spreadTokens: 0 }, 2); // [[short], [long]]
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
  limits: BatchLimits,
  starved: (row: Row) => boolean,
): Row[] {
  const first = inOrder[0]!;
  const maxTokens = mostTokens(limits, first.padded);
  const batch: Row[] = [];
  let tokens = 0;
  let maxRows = first.maxRows;
  for (const row of inOrder) {
    if (row.graph !== first.graph || row.padded !== first.padded) continue;
    tokens += tokensOf(row);
    maxRows = Math.min(maxRows, row.maxRows);
    const level = row.attained <= first.attained + LEVEL * row.padded;
    const most = level || starved(row) ? maxTokens : Math.min(maxTokens, limits.lightTokens);
    if (batch.length > 0 && (tokens > most || batch.length >= maxRows)) break;
    batch.push(row);
  }
  return batch;
}

/** Divide the batches with the largest parts until every worker has one or all parts are small. */
function spread<Row extends SchedulableRow>(
  batches: readonly Row[][],
  { spreadTokens }: BatchLimits,
  freeWorkers: number,
): Row[][] {
  const divided = batches.map((rows) => ({
    rows,
    tokens: rows.reduce((sum, row) => sum + tokensOf(row), 0),
    parts: 1,
  }));
  for (let free = freeWorkers - batches.length; free > 0; free--) {
    const [largest] = divided
      .filter(({ rows, tokens, parts }) => parts < rows.length && tokens / (parts + 1) >= spreadTokens)
      .toSorted((a, b) => b.tokens / b.parts - a.tokens / a.parts);
    if (!largest) break;
    largest.parts++;
  }
  return divided.flatMap(({ rows, parts }) => {
    const start = (part: number) => Math.round((part * rows.length) / parts);
    return Array.from({ length: parts }, (_, part) => rows.slice(start(part), start(part + 1)));
  });
}
