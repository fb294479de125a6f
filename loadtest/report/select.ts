/** Finds cells of a result again, for tables and pictures. */

import type { Cell, Results } from "./types.ts";

/** The side of the server under test. */
export const SERVER = "server";

/** The clients of a closed loop; undefined for an open one. */
export function clientsOf({ load }: Pick<Cell, "load">): number | undefined {
  return load.kind === "closed" ? load.clients : undefined;
}

/** Cells of one shape each in a closed loop. */
export function plainCells({ cells }: Results, side = SERVER): Cell[] {
  return cells.filter(
    (cell) => cell.side === side && cell.load.kind === "closed" && cell.shapes.length === 1,
  );
}

/** The most frequent value; of several, the first. */
export function commonest<T>(values: readonly T[]): T | undefined {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return [...counts].find(([, count]) => count === most)?.[0];
}

/** The server's cells that pictures of budgets are drawn from: by POST, the length that most have. */
export function budgetCells(results: Results): Cell[] {
  const posts = plainCells(results).filter(({ transport }) => transport === "post");
  const length = commonest(posts.map(({ shapes }) => shapes[0]!.length));
  return posts.filter(({ shapes }) => shapes[0]!.length === length);
}

/** The server's cell that a peer's cell stands beside; of a peer without steps, one for each budget. */
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
