/** Every way to decode a request. A new way is one entry of MODES. */

import type { Random } from "../../loadtest/traffic/random.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";

/** A prompt and the number of new tokens. */
export interface Continuation {
  prompt: string;
  length: number;
}

/** One way to decode. */
export interface Mode {
  /** True if the model needs a discriminator. */
  guided?: true;
  /** Fields that the mode adds to, or replaces in, a request that continues `canvas`. */
  fields(random: Random, canvas: Continuation): Partial<GenerateRequest>;
}

const tilt = (random: Random) => ({ mode: "rgas" as const, rerank_ratio: random.pick([0, 0.5]) });
const rerank = (random: Random) => ({
  mode: "rgas" as const,
  rerank_ratio: 1,
  candidates: random.integer(1, 5),
});

export const MODES = {
  random: { fields: () => ({ order: "random" }) },
  spread: {
    fields: (random, { length }) => ({
      order: "spread",
      ...(random.chance(0.3) && { steps: random.integer(8, 16), block_length: Math.ceil(length / 4) }),
    }),
  },
  confidence: { fields: () => ({ order: "confidence" }) },
  threshold: {
    fields: (random) => ({ order: "confidence", threshold: random.pick([0, 0.005, 0.02, 1]) }),
  },
  margin: {
    fields: (random) => ({
      order: "margin",
      ...(random.chance(0.3) && { logprobs: true, top_logprobs: random.integer(1, 3) }),
    }),
  },
  "entropy budget": {
    fields: (random) => ({ order: "entropy", entropy_budget: random.pick([undefined, 0, 8, 25]) }),
  },
  blocks: {
    fields: (random, { length }) => ({
      order: random.pick(["random", "spread", "confidence"]),
      steps: random.integer(8, 16),
      block_length: random.integer(Math.ceil(length / 8), length),
    }),
  },
  remask: {
    fields: (random, { length }) => ({
      remask: {
        mode: random.pick(["random", "confidence"]),
        rate: random.pick([0.05, 0.3, 1]),
        from: random.pick([undefined, 0.2]),
        to: random.pick([undefined, 0.8]),
      },
      ...{ order: random.pick(["random", "spread", "confidence"]), early_stop: random.chance(0.3) },
      ...(random.chance(0.3) && { steps: random.integer(8, 16), block_length: Math.ceil(length / 4) }),
    }),
  },
  "early stop": {
    fields: (random) => ({
      early_stop: true,
      stop: random.pick([undefined, "e", ["a", "th"]]),
      order: random.pick(["random", "spread", "confidence"]),
    }),
  },
  tilt: {
    guided: true,
    fields: (random) => ({ guidance: tilt(random), order: random.pick(["random", "spread"]) }),
  },
  "re-rank": {
    guided: true,
    fields: (random) => ({ guidance: rerank(random), order: random.pick(["random", "spread"]) }),
  },
  smc: {
    guided: true,
    fields: (random) => ({
      guidance: {
        mode: "smc",
        particles: random.integer(2, 4),
        resample_below: random.pick([0, 0.5, 1]),
        rewards: random.pick([undefined, { discriminator: 0.2 }]),
      },
      order: random.pick(["random", "spread"]),
    }),
  },
  best_of: {
    guided: true,
    fields: (random) => ({
      n: 1,
      best_of: random.integer(2, 3),
      guidance: random.pick([undefined, tilt(random)]),
    }),
  },
  n: { fields: (random) => ({ n: random.integer(2, 3) }) },
  template: {
    fields: (random, { prompt, length }) => ({
      prompt: undefined,
      length: undefined,
      template: random.pick([
        `{{mask:${length}}}${prompt}`,
        `${prompt}{{mask:${length}}} and {{mask:2}}`,
        `${prompt}{{mask:${length}}}`,
      ]),
    }),
  },
  choices: {
    fields: (random, { prompt, length }) => ({
      prompt: undefined,
      length: undefined,
      choose: random.pick(["likeliest", "draw"]),
      template: random.pick([
        `${prompt}{{choice: a| the big}}{{mask:${Math.min(length, 20)}}}`,
        `{{choice:He|She}} ${prompt} {{choice:ran|sat on it|was}}{{mask:${Math.min(length, 20)}}}.`,
        `${prompt} {{choice:cat|dog|red ball}}.`,
      ]),
    }),
  },
  "temperature 0": {
    fields: (random) => ({ temperature: 0, order: random.pick(["random", "spread", "confidence"]) }),
  },
  top_k: { fields: (random) => ({ top_k: random.integer(1, 20) }) },
  top_p: { fields: (random) => ({ top_p: random.pick([0.1, 0.5, 0.9]) }) },
} satisfies Record<string, Mode>;

export type ModeName = keyof typeof MODES;
