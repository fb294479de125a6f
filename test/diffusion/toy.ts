/** Toy denoisers and a driver, to test the sampler without a model. */

import assert from "node:assert/strict";
import { promptCanvas } from "../../src/diffusion/canvas.ts";
import { Sample } from "../../src/diffusion/sampler.ts";
import { LOG_LINEAR } from "../../src/diffusion/schedule.ts";
import {
  type Draws,
  isEmpty,
  type Passes,
  type SampleParams,
  type StepRecord,
} from "../../src/diffusion/step.ts";

/** p(x0 | z) at one position: probabilities of the V - 1 tokens that are not the mask. */
export type ToyDenoiser = (canvas: Int32Array, position: number) => number[];

/** Return softmax(logits / temperature); temperature 0 selects the largest. */
export function softmax(logits: number[], temperature = 1): number[] {
  const top = Math.max(...logits);
  if (temperature === 0) return logits.map((logit) => Number(logit === top));
  const weights = logits.map((logit) => Math.exp((logit - top) / temperature));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / total);
}

/** Return the entropy of a distribution, nats. */
const entropy = (p: number[]) => p.reduce((sum, q) => sum - (q > 0 ? q * Math.log(q) : 0), 0);

/** Return the largest probability less the second. */
const margin = (p: readonly number[]) => {
  const [first, second = 0] = p.toSorted((a, b) => b - a);
  return first! - second;
};

/** Return the first index whose cumulative probability reaches the uniform. */
export function inverseCdf(p: readonly number[], uniform: number): number {
  let cumulative = 0;
  for (let i = 0; i < p.length; i++) {
    cumulative += p[i]!;
    if (cumulative >= uniform) return i;
  }
  return p.length - 1;
}

/** Return the chi-square statistic; expected counts must not be tiny. */
export function chiSquare(observed: number[], expected: number[]): number {
  assert.ok(Math.min(...expected) >= 5, "cells too small for a chi-square test");
  return observed.reduce((sum, o, i) => sum + (o - expected[i]!) ** 2 / expected[i]!, 0);
}

/** A toy discriminator. */
export interface ToyDiscriminator {
  /** Reward of a whole canvas. */
  reward(canvas: Int32Array): number;
  /** p at one position, tilted by `scale` times the gradient of the reward. */
  tilt(p: number[], canvas: Int32Array, position: number, scale: number): number[];
}

/** Parameters of a sample, with a prompt and a number of masks instead of the canvas. */
export type ToyParams = Omit<SampleParams, "canvas"> & { prompt: readonly number[]; length: number };

/** Return a new sample. */
export function toySample({ prompt, length, ...params }: ToyParams, maskId: number): Sample {
  return new Sample({ ...params, canvas: promptCanvas(prompt, length, maskId) }, LOG_LINEAR, maskId);
}

/** Run a sample to its end; return the canvas, the steps and the passes. */
export function drive(
  params: ToyParams,
  maskId: number,
  denoise: ToyDenoiser,
  discriminator?: ToyDiscriminator,
): { tokens: number[]; steps: StepRecord[]; passes: Passes } {
  const sample = toySample(params, maskId);
  const steps: StepRecord[] = [];
  while (!sample.done) {
    const plan = sample.plan();
    const shared = sample.canvas.tokens.slice();
    const draws = plan.candidates.map(({ positions, uniforms }, candidate): Draws => {
      const canvas = plan.canvases?.[candidate] ?? shared;
      const own = positions.map((position) => denoise(canvas, position));
      const target =
        plan.kind === "tilt"
          ? own.map((p, i) => discriminator!.tilt(p, canvas, positions[i]!, plan.scale))
          : own;
      const tokens = target.map((p, i) => inverseCdf(p, uniforms[i]!));
      return {
        tokens,
        logprobs: own.map((p, i) => Math.log(p[tokens[i]!]!)),
        entropies: own.map(entropy),
        margins: own.map(margin),
      };
    });
    const rewards: number[] = [];
    if (!isEmpty(plan)) {
      if (plan.kind === "tilt") rewards.push(discriminator!.reward(shared));
      if (plan.kind === "rerank" || plan.kind === "smc")
        rewards.push(...sample.candidateCanvases(plan, draws).map((c) => discriminator!.reward(c)));
    }
    steps.push(sample.apply(plan, draws, rewards));
  }
  return { tokens: [...sample.canvas.tokens], steps, passes: sample.passes };
}
