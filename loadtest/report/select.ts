/** Selects the cells of a result for tables and pictures. */

import type { Cell, Results } from "./types.ts";

/** The side of the server under test. */
export const SERVER = "server";

/** Return the clients of a closed loop; undefined for an open one. */
export function clientsOf({ load }: Pick<Cell, "load">): number | undefined {
  return load.kind === "closed" ? load.clients : undefined;
}

/** Return a side's cells of one shape in a closed loop. */
export function plainCells({ cells }: Results, side = SERVER): Cell[] {
  return cells.filter(
    (cell) => cell.side === side && cell.load.kind === "closed" && cell.shapes.length === 1,
  );
}

/** Return the most frequent value; of several, the first. */
export function commonest<T>(values: readonly T[]): T | undefined {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return [...counts].find(([, count]) => count === most)?.[0];
}

/** Return the server's cells for pictures over budgets: by POST, of the most frequent length. */
export function budgetCells(results: Results): Cell[] {
  const posts = plainCells(results).filter(({ transport }) => transport === "post");
  const length = commonest(posts.map(({ shapes }) => shapes[0]!.length));
  return posts.filter(({ shapes }) => shapes[0]!.length === length);
}

/** Return the server's cells to compare with a peer's cell; for a peer without steps, one for each budget. */
export function besides(results: Results, peer: Cell): Cell[] {
  const [own] = peer.shapes;
  return plainCells(results).filter(
    (cell) =>
      cell.transport === "post" &&
      clientsOf(cell) === clientsOf(peer) &&
      cell.shapes[0]!.guidance !== "rgas" &&
      cell.shapes[0]!.length === own!.length &&
      (own!.steps === undefined || own!.steps === cell.shapes[0]!.steps),
  );
}
