/** The requests of a chaos run, and the comparison of their answers with those without faults. */

import type { GenerateRequest } from "../../src/client/types.ts";
import type { Schemas } from "../../src/server/openapi.ts";

export type Body = GenerateRequest;
export type Step = Schemas["StepEvent"];
export type Sample = Schemas["GenerateResponse"]["samples"][number];

/** An answer and its steps. */
export interface Answer {
  samples: Sample[];
  steps: Step[];
}

/** Plain, guided, ranked, infilling and confidence-ordered requests; one is the largest that is allowed. */
export const REQUESTS: readonly Body[] = Array.from({ length: 40 }, (_, i): Body => {
  const base = { length: 8 + 5 * (i % 9), steps: 2 + 3 * (i % 6), seed: 1000 + i };
  const prompt = ["", "Once upon a time", "The dog and the boy", "Long ago there was"][i % 4]!;
  switch (i % 8) {
    case 1:
      return { ...base, prompt, order: "confidence" };
    case 3:
      return { ...base, prompt, steps: 2 + (i % 3), guidance: { mode: "rgas", rerank_ratio: 0.5 } };
    case 4:
      return {
        steps: base.steps,
        seed: base.seed,
        template: "The {{mask:5}} lived in {{mask:7}} and was {{mask:3}}.",
      };
    case 5:
      return { ...base, prompt, n: 3, temperature: 0.8, top_k: 40 };
    case 6:
      return { ...base, prompt, steps: 3, best_of: 4, n: 2 };
    case 7:
      return { prompt: "", length: 240, steps: 4, n: i === 39 ? 16 : 2, seed: base.seed };
    default:
      return { ...base, prompt, stop: ["."], logprobs: i % 3 === 0 };
  }
});

/** Return the steps of each sample in order of arrival, without the id of the request. */
function bySample(steps: readonly Step[]): Map<number, Omit<Step, "id">[]> {
  const samples = new Map<number, Omit<Step, "id">[]>();
  for (const { id: _, ...step } of steps)
    samples.set(step.sample, [...(samples.get(step.sample) ?? []), step]);
  return samples;
}

/** The comparison of a stream with the stream without faults. */
export interface Comparison {
  /** The first difference, if any. */
  fault: string | undefined;
  /** Steps that were merged into a later one for a slow reader. */
  merged: number;
}

/** Return the steps after `from` up to `to` merged into one, as a slow reader gets them. */
function mergedSteps(steps: readonly Omit<Step, "id">[], from: number, to: number): Omit<Step, "id"> {
  const parts = steps.filter(({ step }) => step > from && step <= to);
  return { ...parts.at(-1)!, revealed: parts.flatMap(({ revealed }) => revealed) };
}

/** Compare a stream's steps with those without faults. */
export function compareSteps(answers: readonly Step[], expected: readonly Step[]): Comparison {
  const ours = bySample(answers);
  let merged = 0;
  for (const [sample, steps] of bySample(expected)) {
    let last = 0;
    for (const event of ours.get(sample) ?? []) {
      const where = `sample ${sample}, step ${event.step} after ${last}`;
      if (event.step <= last) return { fault: `${where}: repeated`, merged };
      if (JSON.stringify(event) !== JSON.stringify(mergedSteps(steps, last, event.step)))
        return { fault: `${where}: different`, merged };
      merged += event.step - last - 1;
      last = event.step;
    }
    if (last !== steps.at(-1)!.step) return { fault: `sample ${sample} ends with step ${last}`, merged };
  }
  return { fault: undefined, merged };
}

/** Return whether two answers are equal. */
export function sameSamples(answers: readonly Sample[], expected: readonly Sample[]): boolean {
  return JSON.stringify(answers) === JSON.stringify(expected);
}
