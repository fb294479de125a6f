/** Divide a batch into parts with about as many rows each, and join their results. */

import type { Batch, Canvases, DenoiseInput, GraphName, Graphs, TiltInput } from "../protocol.ts";

type Result = Graphs[GraphName]["result"];

/** Largest allowed part, in even shares. A batch that cannot be divided so evenly stays whole. */
const UNEVEN = 1.25;

/**
 * Return the parts of a batch, at least one row each, or the batch itself if its rows do not divide evenly
 * enough.
 */
export function divide({ graph, input }: Batch, parts: number): Batch[] {
  const { rows } = input;
  if (parts === 1 || (Math.ceil(rows / parts) * parts) / rows > UNEVEN) return [{ graph, input } as Batch];
  const start = (part: number) => Math.round((part * rows) / parts);
  return Array.from(
    { length: parts },
    (_, part) => ({ graph, input: cut(input, start(part), start(part + 1)) }) as Batch,
  );
}

/** Return the input of rows `from` to `to` (exclusive). */
function cut(input: Canvases | DenoiseInput | TiltInput, from: number, to: number): typeof input {
  const { padded } = input;
  const canvases: Canvases = {
    rows: to - from,
    padded,
    tokens: input.tokens.slice(from * padded, to * padded),
    length: input.length.slice(from, to),
    sigma: input.sigma.slice(from, to),
  };
  if (!("draws" in input)) return canvases;
  const [firstPick, endPick] = [picksBefore(input, from), picksBefore(input, to)];
  const [firstDraw, endDraw] = [drawsBefore(input, firstPick), drawsBefore(input, endPick)];
  const drawn: DenoiseInput = {
    ...canvases,
    picks: input.picks
      .slice(2 * firstPick, 2 * endPick)
      .map((value, i) => (i % 2 === 0 ? value - from : value)),
    draws: input.draws.slice(firstDraw, endDraw).map((pick) => pick - firstPick),
    uniform: input.uniform.slice(firstDraw, endDraw),
    temperature: input.temperature.slice(firstDraw, endDraw),
    topK: input.topK.slice(firstDraw, endDraw),
    topP: input.topP.slice(firstDraw, endDraw),
    maskBias: input.maskBias.slice(from, to),
    alternatives: input.alternatives,
  };
  return "scale" in input ? { ...drawn, scale: input.scale.slice(from, to) } : drawn;
}

/** Return the number of picks of earlier rows. */
function picksBefore({ picks }: DenoiseInput, row: number): number {
  let count = 0;
  while (2 * count < picks.length && picks[2 * count]! < row) count++;
  return count;
}

/** Return the number of draws of earlier picks; `pick` is the first one of its row. */
function drawsBefore({ draws }: DenoiseInput, pick: number): number {
  let count = 0;
  while (count < draws.length && draws[count]! < pick) count++;
  return count;
}

/**
 * Return the result of the whole batch: token and logprob [S], entropy [P], the most likely tokens [P, K] and
 * reward [B] of the parts, concatenated.
 *
 * @param milliseconds time of the whole batch
 */
export function join(results: readonly Result[], milliseconds: number): Result {
  const floats = (of: (result: Result) => Float32Array) => {
    const all = results.map(of);
    const joined = new Float32Array(all.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const values of all) {
      joined.set(values, at);
      at += values.length;
    }
    return joined;
  };
  type Drawn = Graphs["tilt"]["result"];
  const reward =
    "reward" in results[0]! ? { reward: floats((result) => (result as Drawn).reward) } : undefined;
  if (!("token" in results[0]!)) return { reward: reward!.reward, milliseconds };
  const ids = (of: (result: Drawn) => Int32Array) =>
    Int32Array.from((results as Drawn[]).flatMap((result) => [...of(result)]));
  return {
    token: ids(({ token }) => token),
    logprob: floats((result) => (result as Drawn).logprob),
    entropy: floats((result) => (result as Drawn).entropy),
    topToken: ids(({ topToken }) => topToken),
    topLogprob: floats((result) => (result as Drawn).topLogprob),
    ...reward,
    milliseconds,
  };
}
