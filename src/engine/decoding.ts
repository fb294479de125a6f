/** How a request is decoded: the order, remasking and guidance, and which of them go together. */

import { blockCount } from "../diffusion/blocks.ts";
import type { Guidance } from "../diffusion/guidance.ts";
import type { Smc } from "../diffusion/particles.ts";
import { isDrawn, type Order } from "../diffusion/step.ts";
import { invalid } from "../errors.ts";
import { DISCRIMINATOR, rewardsOf } from "../model/manifest.ts";
import type { Model } from "../model/model.ts";
import type {
  GenerateRequest,
  GuidanceRequest,
  RemaskRequest,
  RewardWeights,
  SamplingParams,
} from "./request.ts";

/**
 * Return in which order positions are revealed, and which are masked again. Throws InvalidRequestError for
 * options that exclude each other.
 *
 * @param own order of requests that name none
 */
export function orderOf(
  own: Order,
  { order = own, threshold, entropy_budget: entropyBudget, block_length, remask }: GenerateRequest,
  guided: boolean,
  generated: number,
  steps: number,
): Pick<SamplingParams, "order" | "threshold" | "entropyBudget" | "blockLength" | "remask"> {
  if (threshold !== undefined && order !== "confidence")
    throw invalid("/threshold", `has no effect in order ${order}: set /order to confidence`);
  if (entropyBudget !== undefined && order !== "entropy")
    throw invalid("/entropy_budget", `has no effect in order ${order}: set /order to entropy`);
  if (guided && !isDrawn(order))
    throw invalid("/order", `${order} cannot be guided: use order random or spread, or guidance mode none`);
  if (guided && block_length !== undefined)
    throw invalid("/block_length", "cannot stand beside guidance: leave it out, or use guidance mode none");
  const adaptive =
    threshold !== undefined ? "threshold" : entropyBudget !== undefined ? "entropy_budget" : undefined;
  const blockLength = block_length !== undefined && block_length < generated ? block_length : undefined;
  const blocks = blockLength ? blockCount(generated, blockLength) : 1;
  if (blocks > steps)
    throw invalid(
      "/block_length",
      `makes ${blocks} blocks of ${generated} tokens, and each needs a step of the ${steps}: ` +
        `use at least ${Math.ceil(generated / steps)}, or more steps`,
    );
  return {
    order,
    threshold,
    entropyBudget,
    blockLength,
    ...(remask && remaskOf(remask, guided, adaptive)),
  };
}

/**
 * Return the remasking of a request with its defaults filled in. Throws InvalidRequestError.
 *
 * @param adaptive field that lets a sample end before its budget, if there is one
 */
function remaskOf(
  { mode, rate, from = 0, to = 1 }: RemaskRequest,
  guided: boolean,
  adaptive: string | undefined,
): Pick<SamplingParams, "remask"> {
  if (guided)
    throw invalid("/remask", "cannot stand beside guidance: leave it out, or use guidance mode none");
  if (adaptive)
    throw invalid(
      "/remask",
      `cannot stand beside ${adaptive}, which ends when nothing is masked: leave one out`,
    );
  if (from >= to) throw invalid("/remask/from", `must be below /remask/to, which is ${to}`);
  return { remask: { mode, rate, from, to } };
}

/** The guidance of a request; without fields for the plain sampler. */
export interface Guided {
  guidance?: Guidance;
  smc?: Smc;
  /** Sorted by name. */
  rewards?: RewardWeights;
}

/** The fields of each mode. */
const FIELDS = {
  none: [],
  rgas: ["rewards", "scale", "candidates", "rerank_ratio"],
  smc: ["rewards", "particles", "resample_below"],
} as const satisfies Record<GuidanceRequest["mode"], readonly (keyof GuidanceRequest)[]>;

/** Settings of a model that has rewards and no discriminator. */
const NO_DISCRIMINATOR = { candidates: 4, scale_start: 0, scale_end: 0, rerank_ratio: 1 };

/** Return the guidance of a request with the model's defaults filled in. Throws InvalidRequestError. */
export function prepareGuidance(model: Model, request: GuidanceRequest | undefined): Guided {
  if (!request) return {};
  const { mode, ...settings } = request;
  for (const [name, value] of Object.entries(settings)) {
    if (value === undefined || (FIELDS[mode] as readonly string[]).includes(name)) continue;
    const modes = Object.entries(FIELDS).filter(([, fields]) => (fields as readonly string[]).includes(name));
    const needed = modes.map(([other]) => other).join(" or ");
    const without = mode === "none" ? "without guidance" : `in mode ${mode}`;
    throw invalid(
      `/guidance/${name}`,
      `has no effect ${without}: leave it out, or set /guidance/mode to ${needed}`,
    );
  }
  if (mode === "none") return {};
  const { name, guidance: own } = model.manifest;
  if (!own && !settings.rewards)
    throw invalid(
      "/guidance/mode",
      `${name} has no discriminator to guide with: ` +
        (model.manifest.rewards
          ? "name its rewards in /guidance/rewards"
          : "use mode none, or another model"),
    );
  const rewards = rewardsFor(model, settings.rewards, "/guidance/rewards");
  if (mode === "smc") {
    const { particles = 4, resample_below: resampleBelow = 0.5 } = settings;
    return { smc: { particles, resampleBelow }, rewards };
  }
  const isDefault = Object.entries(rewards).join() === `${DISCRIMINATOR},1`;
  const defaults = own ?? NO_DISCRIMINATOR;
  const rerankRatio = settings.rerank_ratio ?? (isDefault ? defaults.rerank_ratio : 1);
  if (!isDefault && rerankRatio < 1)
    throw invalid(
      "/guidance/rerank_ratio",
      "must be 1 with these rewards: other steps tilt along the gradient of the discriminator alone",
    );
  const [scaleStart, scaleEnd] = settings.scale ?? [defaults.scale_start, defaults.scale_end];
  const candidates = settings.candidates ?? defaults.candidates;
  return { guidance: { candidates, scaleStart: scaleStart!, scaleEnd: scaleEnd!, rerankRatio }, rewards };
}

/**
 * Return guidances of one step that together run every graph of a model: plain, one that tilts, one that
 * re-ranks, and `withRewards` one by each reward beside the discriminator, which is otherwise loaded when it
 * is used.
 */
export function everyGuidance({ manifest }: Model, withRewards: boolean): (GuidanceRequest | undefined)[] {
  const ratios = manifest.guidance ? [0, 1] : [];
  const rewards = (withRewards && manifest.rewards) || [];
  return [
    undefined,
    ...ratios.map((rerank_ratio) => ({ mode: "rgas" as const, rerank_ratio })),
    ...rewards.map(({ name }) => ({ mode: "rgas" as const, rewards: { [name]: 1 } })),
  ];
}

/**
 * Return the weights of rewards, sorted by name; by default the discriminator's. Throws InvalidRequestError
 * for a name that the model does not have.
 *
 * @param path of the field
 */
export function rewardsFor(
  { manifest }: Model,
  given: RewardWeights = { [DISCRIMINATOR]: 1 },
  path: string,
): RewardWeights {
  const names = rewardsOf(manifest).map(({ name }) => name);
  const unknown = Object.keys(given).find((name) => !names.includes(name));
  if (unknown !== undefined)
    throw invalid(
      `${path}/${unknown}`,
      `is no reward of ${manifest.name}, which has ${names.length > 0 ? names.join(", ") : "none"}`,
    );
  return Object.fromEntries(Object.entries(given).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
