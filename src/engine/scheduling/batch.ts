/** Rows into one call of a graph, and its answer back to the rows. */

import type { Draws, StepPlan } from "../../diffusion/sampler.ts";
import { alpha, gridTime, type Schedule } from "../../diffusion/schedule.ts";
import { NonFiniteError } from "../../errors.ts";
import type {
  Canvases,
  DenoiseInput,
  DenoiseResult,
  ScoreResult,
  TiltInput,
} from "../../runtime/protocol.ts";

/** Added to a kept mask logit, it leaves the mask a probability of exactly 0 in float32: SUBS. */
const IMPOSSIBLE = -1e9;

/** A row's part of a call that draws tokens. */
export interface DrawRow {
  readonly padded: number;
  readonly tokens: Int32Array;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly schedule: Schedule;
  readonly plan: StepPlan;
}

/** A row's part of a call that scores canvases. */
export interface ScoreRow {
  readonly padded: number;
  readonly schedule: Schedule;
  readonly plan: StepPlan;
  /** Step budget. */
  readonly steps: number;
  /** [M, L] */
  readonly canvases: readonly Int32Array[];
}

/** A row's part of an answer: draws for each candidate, and, of a tilted step, the reward. */
export interface RowDraws {
  candidates: Draws[];
  rewards: number[];
  /** Nats, mean over the draws. */
  entropy: number;
}

/** The noise level sigma(t) = -ln alpha(t). */
const sigma = (schedule: Schedule, t: number) => -Math.log(alpha(schedule, t));

/** Canvases side by side. Positions past a canvas hold id 0 and are never attended to. */
function layOut(canvases: readonly Int32Array[], padded: number, sigmas: Float32Array): Canvases {
  const tokens = new Int32Array(canvases.length * padded);
  canvases.forEach((canvas, index) => {
    tokens.set(canvas, index * padded);
  });
  const length = Int32Array.from(canvases, (canvas) => canvas.length);
  return { rows: canvases.length, padded, tokens, length, sigma: sigmas };
}

/** Where the head runs and what it draws, gathered over rows. */
class Picks {
  readonly picks: number[] = [];
  readonly draws: number[] = [];
  readonly uniform: number[] = [];
  /** The row of each draw. */
  readonly owners: DrawRow[] = [];

  /** Adds the draws of rows whose canvas is number `canvas` of the call; they share the picks. */
  add(canvas: number, rows: readonly DrawRow[]): void {
    const positions = rows.flatMap(({ plan }) => plan.candidates.flatMap((candidate) => candidate.positions));
    const first = this.picks.length / 2;
    const pickOf = new Map([...new Set(positions)].map((position, i) => [position, first + i]));
    for (const position of pickOf.keys()) this.picks.push(canvas, position);
    for (const row of rows)
      for (const candidate of row.plan.candidates)
        candidate.positions.forEach((position, i) => {
          this.draws.push(pickOf.get(position)!);
          this.uniform.push(candidate.uniforms[i]!);
          this.owners.push(row);
        });
  }
}

/**
 * The noise level and the mask bias of a row's canvas.
 *
 * The plain sampler runs at sigma 0, as in training, and never draws the mask. For graphs converted with the
 * reference's ways (docs/bring-a-model.md), a guided row gets the true sigma, and a mask bias that makes "the
 * mask was drawn" as likely as the reference's "stay masked" at a revealed position: the log of the step's own
 * probability to stay masked. So both depend on the row's own step budget.
 */
function conditions({ schedule, plan }: DrawRow): { sigma: number; maskBias: number } {
  if (plan.kind === "plain") return { sigma: 0, maskBias: IMPOSSIBLE };
  return { sigma: sigma(schedule, plan.t), maskBias: Math.log(plan.stay) };
}

/**
 * Rows in groups that share a canvas of the call: those whose canvas and conditions are the same, so that their pass
 * is. Only first steps are compared, where samples of one prompt have the same canvas, and none that tilts: `tilt`
 * has a scale for each canvas.
 */
function byCanvas(rows: readonly DrawRow[]): DrawRow[][] {
  const groups = new Map<string, DrawRow[]>();
  rows.forEach((row, index) => {
    const { step, kind } = row.plan;
    const { sigma, maskBias } = conditions(row);
    const isShareable = step === 0 && kind !== "tilt";
    const key = isShareable ? `${sigma} ${maskBias} ${row.tokens.join()}` : `row ${index}`;
    const group = groups.get(key);
    if (group) group.push(row);
    else groups.set(key, [row]);
  });
  return [...groups.values()];
}

/** The rows of a call in the order in which its draws answer them. */
export function drawOrder<Row extends DrawRow>(rows: readonly Row[]): Row[] {
  return byCanvas(rows).flat() as Row[];
}

/**
 * What `denoise` is asked for rows of one padded length, given in `drawOrder`. A row's candidates share its picks: the
 * union of the positions they reveal; rows with the same canvas and conditions in their first step share one.
 */
export function denoiseBatch(rows: readonly DrawRow[]): DenoiseInput {
  const groups = byCanvas(rows);
  const firsts = groups.map((group) => group[0]!);
  const given = firsts.map(conditions);
  const canvases = layOut(
    firsts.map((row) => row.tokens),
    rows[0]!.padded,
    Float32Array.from(given, ({ sigma }) => sigma),
  );
  const gathered = new Picks();
  groups.forEach((group, canvas) => {
    gathered.add(canvas, group);
  });
  const { picks, draws, uniform, owners } = gathered;
  return {
    ...canvases,
    picks: Int32Array.from(picks),
    draws: Int32Array.from(draws),
    uniform: Float32Array.from(uniform),
    temperature: Float32Array.from(owners, (row) => row.temperature),
    topK: Int32Array.from(owners, (row) => row.topK),
    topP: Float32Array.from(owners, (row) => row.topP),
    maskBias: Float32Array.from(given, ({ maskBias }) => maskBias),
  };
}

/** What `tilt` is asked for rows of one padded length. */
export function tiltBatch(rows: readonly DrawRow[]): TiltInput {
  return { ...denoiseBatch(rows), scale: Float32Array.from(rows, (row) => row.plan.scale) };
}

/** What `score` is asked: every canvas of every row, at the time its step ends, or after the last step at the end of time. */
export function scoreBatch(rows: readonly ScoreRow[]): Canvases {
  const sigmas = rows.flatMap(({ canvases, schedule, plan, steps }) =>
    canvases.map(() => sigma(schedule, gridTime(schedule, steps, Math.min(plan.step + 1, steps)))),
  );
  return layOut(
    rows.flatMap((row) => row.canvases),
    rows[0]!.padded,
    Float32Array.from(sigmas),
  );
}

const notFinite = (what: string) => new NonFiniteError(`the model gave a ${what} that is not finite`);

/** Each row's draws, for rows in `drawOrder`, or the error of a row whose numbers are not finite (its neighbours are not affected). */
export function splitDraws(
  rows: readonly DrawRow[],
  batch: DenoiseInput,
  result: DenoiseResult & Partial<ScoreResult>,
): (RowDraws | NonFiniteError)[] {
  let start = 0;
  return rows.map(({ plan }, index) => {
    const first = start;
    const candidates = plan.candidates.map(({ positions }) => {
      const end = start + positions.length;
      const draws = { tokens: result.token.slice(start, end), logprobs: result.logprob.slice(start, end) };
      start = end;
      return draws;
    });
    const rewards = result.reward ? [result.reward[index]!] : [];
    if (!candidates.every(({ logprobs }) => logprobs.every(Number.isFinite)))
      return notFinite("log-probability");
    if (!rewards.every(Number.isFinite)) return notFinite("reward");
    let entropy = 0;
    for (let i = first; i < start; i++) entropy += result.entropy[batch.draws[i]!]! / (start - first);
    return { candidates, rewards, entropy };
  });
}

/** Each row's rewards [M], or the error of a row with one that is not finite. */
export function splitRewards(rows: readonly ScoreRow[], result: ScoreResult): (number[] | NonFiniteError)[] {
  let start = 0;
  return rows.map(({ canvases }) => {
    const rewards = Array.from(result.reward.slice(start, start + canvases.length));
    start += canvases.length;
    return rewards.every(Number.isFinite) ? rewards : notFinite("reward");
  });
}
