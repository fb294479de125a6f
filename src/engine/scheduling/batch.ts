/** Build the input of a graph from rows, and split its result among them. */

import type { Canvas, TokenLogprob } from "../../diffusion/canvas.ts";
import { alpha, gridTime, type Schedule } from "../../diffusion/schedule.ts";
import {
  alternativesOf,
  type Draws,
  type Order,
  type SampleParams,
  type StepPlan,
} from "../../diffusion/step.ts";
import { NonFiniteError } from "../../errors.ts";
import type {
  Canvases,
  DenoiseInput,
  DenoiseResult,
  ScoreResult,
  TiltInput,
} from "../../runtime/protocol.ts";

/** Added to the logit of the mask, gives it a probability of exactly 0 in float32. */
const NEVER_MASK = -1e9;

/** A row that draws tokens. */
export interface DrawRow {
  readonly padded: number;
  readonly plan: StepPlan;
  readonly sample: {
    readonly canvas: Pick<Canvas, "tokens">;
    readonly params: Pick<SampleParams, "temperature" | "topK" | "topP" | "topLogprobs"> & { order?: Order };
    readonly schedule: Schedule;
  };
}

/** A row whose canvases are scored. */
export interface ScoreRow {
  readonly padded: number;
  readonly plan: StepPlan;
  readonly sample: { readonly params: Pick<SampleParams, "steps">; readonly schedule: Schedule };
  /** [M, L] */
  readonly canvases: readonly Int32Array[];
}

/** A row's part of the result of `denoise` or `tilt`. */
export interface RowDraws {
  /** Draws of each candidate. */
  candidates: Draws[];
  /** The reward of a tilted step, else empty. */
  rewards: number[];
  /** Nats, mean over the draws. */
  entropy: number;
  /** The most likely tokens by position, best first, if the row asks for them. */
  top?: ReadonlyMap<number, TokenLogprob[]>;
}

/** Noise level sigma(t) = -ln alpha(t). */
const sigmaAt = (schedule: Schedule, t: number) => -Math.log(alpha(schedule, t));

/** Stack canvases. Positions after the end of a canvas hold id 0, and the graph ignores them. */
function stack(canvases: readonly Int32Array[], padded: number, sigmas: readonly number[]): Canvases {
  const tokens = new Int32Array(canvases.length * padded);
  for (const [i, canvas] of canvases.entries()) tokens.set(canvas, i * padded);
  const length = Int32Array.from(canvases, (canvas) => canvas.length);
  return { rows: canvases.length, padded, tokens, length, sigma: Float32Array.from(sigmas) };
}

/**
 * Return the noise level and the mask bias of a row.
 *
 * The plain sampler runs at sigma 0, as in training, and never draws the mask. For graphs converted from the
 * reference code (docs/bring-a-model.md), a guided row gets the true sigma and a mask bias that makes "the
 * mask was drawn" as likely as the reference's "stay masked" at a revealed position: the log of the step's
 * probability to stay masked. Both depend on nothing but the row's own step budget.
 */
function conditions({ sample, plan }: DrawRow): { sigma: number; maskBias: number } {
  if (plan.kind === "plain" || plan.kind === "smc") return { sigma: 0, maskBias: NEVER_MASK };
  return { sigma: sigmaAt(sample.schedule, plan.t), maskBias: Math.log(plan.stay) };
}

/**
 * Group rows that have the same canvas and conditions, and so can share one canvas of the batch. Only first
 * steps are compared, where samples of one prompt are equal; `tilt` never shares, since it has one scale for
 * each canvas.
 */
function byCanvas<Row extends DrawRow>(rows: readonly Row[]): Row[][] {
  const groups = new Map<string, Row[]>();
  for (const [i, row] of rows.entries()) {
    const { step, kind } = row.plan;
    const { sigma, maskBias } = conditions(row);
    const canShare = step === 0 && kind !== "tilt";
    const key = canShare ? `${sigma} ${maskBias} ${row.sample.canvas.tokens.join()}` : `row ${i}`;
    const group = groups.get(key);
    if (group) group.push(row);
    else groups.set(key, [row]);
  }
  return [...groups.values()];
}

/** Sort rows into the order in which the result of a batch holds their draws. */
export function drawOrder<Row extends DrawRow>(rows: readonly Row[]): Row[] {
  return byCanvas(rows).flat();
}

/**
 * Return the input of `denoise` for rows of one padded length, given in `drawOrder`. The candidates of a row
 * share picks: the union of the positions they reveal. Rows that share a canvas share its picks too.
 */
export function denoiseInput(rows: readonly DrawRow[]): DenoiseInput {
  const groups = byCanvas(rows);
  const firsts = groups.map((group) => group[0]!);
  const given = firsts.map(conditions);
  const picks: number[] = [];
  const draws: number[] = [];
  const uniform: number[] = [];
  const temperature: number[] = [];
  const topK: number[] = [];
  const topP: number[] = [];
  for (const [canvas, group] of groups.entries()) {
    const all = group.flatMap(({ plan }) => plan.candidates.flatMap(({ positions }) => positions));
    const firstPick = picks.length / 2;
    const pickOf = new Map([...new Set(all)].map((position, i) => [position, firstPick + i]));
    for (const position of pickOf.keys()) picks.push(canvas, position);
    for (const { plan, sample } of group)
      for (const { positions, uniforms } of plan.candidates)
        for (const [i, position] of positions.entries()) {
          draws.push(pickOf.get(position)!);
          uniform.push(uniforms[i]!);
          temperature.push(sample.params.temperature);
          topK.push(sample.params.topK);
          topP.push(sample.params.topP);
        }
  }
  return {
    ...stack(
      firsts.map(({ sample }) => sample.canvas.tokens),
      rows[0]!.padded,
      given.map(({ sigma }) => sigma),
    ),
    picks: Int32Array.from(picks),
    draws: Int32Array.from(draws),
    uniform: Float32Array.from(uniform),
    temperature: Float32Array.from(temperature),
    topK: Int32Array.from(topK),
    topP: Float32Array.from(topP),
    maskBias: Float32Array.from(given, ({ maskBias }) => maskBias),
    alternatives: Math.max(...rows.map(({ sample }) => alternativesOf(sample.params))),
  };
}

/** Return the input of `tilt` for rows of one padded length, given in `drawOrder`. */
export function tiltInput(rows: readonly DrawRow[]): TiltInput {
  return { ...denoiseInput(rows), scale: Float32Array.from(rows, ({ plan }) => plan.scale) };
}

/** Return the input of `score`: every canvas of every row, at the time its step ends. */
export function scoreInput(rows: readonly ScoreRow[]): Canvases {
  const sigmas = rows.flatMap(({ canvases, sample: { schedule, params }, plan }) =>
    canvases.map(() =>
      sigmaAt(schedule, gridTime(schedule, params.steps, Math.min(plan.step + 1, params.steps))),
    ),
  );
  return stack(
    rows.flatMap(({ canvases }) => canvases),
    rows[0]!.padded,
    sigmas,
  );
}

/** Return how much more likely the first token is than the second. */
const marginOf = ([first, second]: readonly TokenLogprob[]) =>
  Math.exp(first!.logprob) - Math.exp(second!.logprob);

const notFinite = (what: string) => new NonFiniteError(`the model returned a ${what} that is not finite`);

/**
 * Split a result among rows in `drawOrder`. A row with a number that is not finite gets an error, the others
 * do not.
 */
export function splitDraws(
  rows: readonly DrawRow[],
  input: DenoiseInput,
  result: DenoiseResult & Partial<ScoreResult>,
): (RowDraws | NonFiniteError)[] {
  let end = 0;
  /** Return the most likely tokens that a row asks for, by position; its draws start at `first`. */
  const topOf = ({ plan, sample }: DrawRow, first: number): RowDraws["top"] => {
    const count = alternativesOf(sample.params);
    if (count === 0) return undefined;
    const positions = plan.candidates.flatMap(({ positions }) => positions);
    return new Map(
      positions.map((position, i) => {
        const start = input.draws[first + i]! * input.alternatives;
        const tokens = Array.from(
          { length: count },
          (_, k): TokenLogprob => ({
            token: result.topToken[start + k]!,
            logprob: result.topLogprob[start + k]!,
          }),
        );
        // Tilted draws rank them by another distribution than that of their log-probabilities.
        return [position, tokens.sort((a, b) => b.logprob - a.logprob || a.token - b.token)];
      }),
    );
  };
  return rows.map((drawn, row) => {
    const { plan } = drawn;
    const first = end;
    const candidates = plan.candidates.map(({ positions }): Draws => {
      const start = end;
      end += positions.length;
      return {
        tokens: result.token.slice(start, end),
        logprobs: result.logprob.slice(start, end),
        entropies: Float32Array.from(input.draws.subarray(start, end), (pick) => result.entropy[pick]!),
      };
    });
    const top = topOf(drawn, first);
    if (drawn.sample.params.order === "margin")
      for (const [i, { positions }] of plan.candidates.entries())
        candidates[i]!.margins = positions.map((position) => marginOf(top!.get(position)!));
    const rewards = result.reward ? [result.reward[row]!] : [];
    if (!candidates.every(({ logprobs }) => Array.from(logprobs).every(Number.isFinite)))
      return notFinite("log-probability");
    if (!rewards.every(Number.isFinite)) return notFinite("reward");
    let entropy = 0;
    for (const { entropies } of candidates)
      for (const one of Array.from(entropies)) entropy += one / (end - first);
    if (!Number.isFinite(entropy)) return notFinite("entropy");
    return { candidates, rewards, entropy, ...(top && { top }) };
  });
}

/** Split rewards [M] among rows. A row with a reward that is not finite gets an error. */
export function splitRewards(rows: readonly ScoreRow[], result: ScoreResult): (number[] | NonFiniteError)[] {
  let end = 0;
  return rows.map(({ canvases }) => {
    const start = end;
    end += canvases.length;
    const rewards = Array.from(result.reward.slice(start, end));
    return rewards.every(Number.isFinite) ? rewards : notFinite("reward");
  });
}
