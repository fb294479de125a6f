/** Build the answer to a request from a finished sample group. */

import { maskedPositions, type Reveal, type TokenLogprob } from "../../diffusion/canvas.ts";
import type { Passes } from "../../diffusion/step.ts";
import type { Provider } from "../../runtime/protocol.ts";
import type { Choice, Combination, SamplingParams } from "../request.ts";
import { type Receipt, receiptOf } from "./receipt.ts";
import type { SampleRecord, StepEmitter, StepEvent } from "./step-emitter.ts";
import { render } from "./text.ts";
import { textPositions } from "./text-end.ts";

/** A finished sample. */
export interface SampleResult {
  /** Index among the generated samples, as in the steps. */
  sample: number;
  text: string;
  /** Generated ids in order of position; with early stop, up to the end of the text. */
  tokens: number[];
  /**
   * `deadline` if steps were skipped to meet it, else `stop` at an end of text or a stop string, else
   * `length`.
   */
  finish_reason: "length" | "stop" | "deadline";
  /** Text of each span of a template. */
  spans?: string[];
  /** Natural log-probability of each of `tokens`, at temperature 1. */
  logprobs?: number[];
  /** The most likely tokens at the position of each of `tokens`, best first. */
  top_logprobs?: TokenLogprob[][];
  /** Of ranked samples: the reward of the finished canvas. */
  reward?: number;
}

/** The result of a sample group, the same for every request that shares it. */
export interface Outcome {
  /** [samples][L] ids. */
  canvases: Int32Array[];
  /** [samples] true if steps were skipped to meet a deadline. */
  hurried: boolean[];
  /** [samples] final rewards of a ranked group, else empty. */
  rewards: number[];
  passes: Passes;
  /** Where it was computed. */
  provider: Provider;
  /** Hash of every step (docs/understand/sampler.md). */
  traceSha256: string;
}

/** Origin of an answer: computed for this request, shared with a running one, or cached. */
export type CacheState = "miss" | "shared" | "hit";

/** The body of the response to POST /generate. */
export interface Answer {
  id: string;
  model: string;
  seed: number;
  samples: SampleResult[];
  /** Each scored token, instead of samples. */
  scores?: Reveal[];
  /** What was decided for each choice of the template. */
  choices?: Choice[];
  combinations?: Combination[];
  usage: {
    prompt_tokens: number;
    completion_tokens: number;
    steps: number;
    /** Steps that ran, in the sample with the fewest: below `steps` if it ended before its budget. */
    steps_done: number;
    student_passes: number;
    discriminator_passes: number;
    gradient_passes: number;
  };
  cache: CacheState;
  receipt: Receipt;
  /** Every step of every sample, if the request asks for it. */
  trace?: StepEvent[];
  /** Milliseconds. */
  timing: { queue_ms: number; compute_ms: number; total_ms: number };
}

const round = (ms: number) => Math.round(ms * 100) / 100;

/** Return one sample in the shape that the request asks for. */
function sampleResult(
  sample: number,
  { canvases, hurried, rewards }: Outcome,
  reveals: ReadonlyMap<number, Reveal> | undefined,
  { model, request: { params, output } }: StepEmitter,
): SampleResult {
  const canvas = canvases[sample]!;
  const { text, spans, stopped } = render(model.tokenizer, canvas, output);
  const generated = params.earlyStop
    ? textPositions(model.tokenizer, params.canvas, canvas, params.earlyStop)
    : maskedPositions(params.canvas, model.manifest.mask_token_id);
  const result: SampleResult = {
    sample,
    text,
    tokens: generated.map((position) => canvas[position]!),
    finish_reason: hurried[sample] ? "deadline" : stopped ? "stop" : "length",
  };
  if (!output.layout.continues) result.spans = spans;
  if (reveals) result.logprobs = generated.map((position) => reveals.get(position)!.logprob);
  if (reveals && params.topLogprobs)
    result.top_logprobs = generated.map((position) => reveals.get(position)!.top!);
  if (params.ranked) result.reward = rewards[sample]!;
  return result;
}

/** Return the steps that ran in the sample with the fewest; the clean-up pass is not a step of the budget. */
function stepsDone(records: readonly SampleRecord[], { samples, steps }: SamplingParams): number {
  const done = new Array<number>(samples).fill(0);
  for (const { sample, record } of records) if (record.step < steps) done[sample]!++;
  return Math.min(...done);
}

/** Return the reveals of each sample by position. */
function revealsOf(records: readonly SampleRecord[], samples: number): Map<number, Reveal>[] {
  const all = Array.from({ length: samples }, () => new Map<number, Reveal>());
  for (const { sample, record } of records)
    for (const reveal of record.revealed) all[sample]!.set(reveal.position, reveal);
  return all;
}

const revealedCount = (records: readonly SampleRecord[]) =>
  records.reduce((sum, { record }) => sum + record.revealed.length, 0);

/**
 * Return the answer to a request once all its steps are emitted. Rejects with the error of a step that cannot
 * be emitted.
 *
 * @param timing called when the steps are emitted; milliseconds
 */
export async function answer(
  outcome: Outcome,
  records: readonly SampleRecord[],
  { id, cache, emitter }: { id: string; cache: CacheState; emitter: StepEmitter },
  timing: () => Answer["timing"],
): Promise<Answer> {
  await emitter.emitAll(records);
  const { request, model, trace, loop } = emitter;
  const { params, output, decided } = request;
  // A trace of megabytes is serialised at once by whoever awaits this.
  if (trace) await loop.turn();
  const { passes, rewards } = outcome;
  const order = outcome.canvases.map((_, sample) => sample);
  if (params.ranked) order.sort((a, b) => rewards[b]! - rewards[a]! || a - b);
  const generated = maskedPositions(params.canvas, model.manifest.mask_token_id).length;
  const { scored } = params;
  const reveals = output.logprobs || scored ? revealsOf(records, params.samples) : [];
  const { queue_ms, compute_ms, total_ms } = timing();
  return {
    id,
    model: model.manifest.name,
    seed: params.seed,
    samples: order
      .slice(0, output.n)
      .map((sample) => sampleResult(sample, outcome, reveals[sample], emitter)),
    ...(scored && { scores: reveals.map((of, i) => of.get(scored[i]!.position)!) }),
    ...(decided && { choices: decided.choices }),
    ...(decided?.combinations && { combinations: decided.combinations }),
    usage: {
      prompt_tokens: params.canvas.length - generated,
      completion_tokens: revealedCount(records),
      steps: params.steps,
      steps_done: stepsDone(records, params),
      student_passes: passes.student + (decided?.passes ?? 0),
      discriminator_passes: passes.discriminator,
      gradient_passes: passes.gradient,
    },
    cache,
    receipt: receiptOf(model, request, outcome),
    ...(trace && { trace }),
    timing: { queue_ms: round(queue_ms), compute_ms: round(compute_ms), total_ms: round(total_ms) },
  };
}
