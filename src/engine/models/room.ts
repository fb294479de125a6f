/** Which models make room for others, and when: a pure function of the loaded ones. */

import type { ServedModel } from "./served-model.ts";

/** Milliseconds that an idle model stays loaded after its last use. */
const LINGER_MS = 100;

/** What the choice depends on. */
export type LoadedModel = Pick<ServedModel, "uses" | "usedAt" | "keptUntil" | "closing">;

/** The models that make room. */
export interface Room<Loaded> {
  /** Those that take no further requests now, so that they become idle. */
  closing: ReadonlySet<Loaded>;
  /** Time from which a further one takes none; infinite if there is none. */
  nextAt: number;
}

/**
 * Choose `count` models to unload: idle ones first, then those that are closing already, the least recently
 * used ones first. A model in use is closed only once it was loaded for as long as its load took, and an idle
 * one a moment after its last use: the next request of a client that sends one after the other may be on its
 * way.
 *
 * @param now `performance.now()`
 */
export function makeRoom<Loaded extends LoadedModel>(
  loaded: readonly Loaded[],
  count: number,
  now: number,
): Room<Loaded> {
  const rank = ({ uses, closing }: Loaded) => (uses === 0 ? 0 : closing ? 1 : 2);
  const dueAt = ({ uses, usedAt, keptUntil }: Loaded) =>
    uses === 0 ? Math.min(keptUntil, usedAt + LINGER_MS) : keptUntil;
  const chosen = loaded
    .toSorted((a, b) => rank(a) - rank(b) || a.usedAt - b.usedAt)
    .slice(0, Math.max(0, count));
  const later = chosen.map(dueAt).filter((at) => at > now);
  return { closing: new Set(chosen.filter((model) => dueAt(model) <= now)), nextAt: Math.min(...later) };
}
