/** Hand-made denoisers and a driver, for tests of the sampler without a model. */

import { Sample, type SampleParams, type StepRecord } from "../../src/diffusion/sampler.ts";
import { LOG_LINEAR } from "../../src/diffusion/schedule.ts";

/** p(x0 | z) at one position: probabilities of the V - 1 tokens that are not the mask. */
export type ToyDenoiser = (canvas: Int32Array, position: number) => number[];

/** softmax(logits / temperature); temperature 0 puts everything on the largest. */
export function softmax(logits: number[], temperature = 1): number[] {
  const top = Math.max(...logits);
  if (temperature === 0) return logits.map((logit) => Number(logit === top));
  const weights = logits.map((logit) => Math.exp((logit - top) / temperature));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / total);
}

/** The first index whose cumulative probability reaches the uniform. */
export function inverseCdf(p: readonly number[], uniform: number): number {
  let cumulative = 0;
  for (let i = 0; i < p.length; i++) {
    cumulative += p[i]!;
    if (cumulative >= uniform) return i;
  }
  return p.length - 1;
}

/** Runs a sample to its end; returns the canvas and the steps. */
export function drive(
  params: SampleParams,
  maskId: number,
  denoise: ToyDenoiser,
): { tokens: number[]; steps: StepRecord[]; passes: number } {
  const sample = new Sample(params, LOG_LINEAR, maskId);
  const steps: StepRecord[] = [];
  while (!sample.done) {
    const plan = sample.plan();
    const canvas = sample.canvas.tokens.slice();
    const p = plan.positions.map((position) => denoise(canvas, position));
    const tokens = p.map((row, i) => inverseCdf(row, plan.uniforms[i]!));
    const logprobs = p.map((row, i) => Math.log(row[tokens[i]!]!));
    steps.push(sample.apply(plan, tokens, logprobs));
  }
  return { tokens: [...sample.canvas.tokens], steps, passes: sample.passes };
}
