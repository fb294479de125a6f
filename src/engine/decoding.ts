/** How a request is decoded: the order, remasking and guidance, and which of them go together. */

import { blockCount } from "../diffusion/blocks.ts";
import type { Guidance } from "../diffusion/guidance.ts";
import { InvalidRequestError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { GenerateRequest, GuidanceRequest, RemaskRequest, SamplingParams } from "./request.ts";

/** Return the error of a field. */
export const refuse = (path: string, message: string) => new InvalidRequestError([{ path, message }]);

/**
 * Return in which order positions are revealed, and which are masked again. Throws InvalidRequestError for
 * options that exclude each other.
 */
export function orderOf(
  { order = "random", threshold, entropy_budget: entropyBudget, block_length, remask }: GenerateRequest,
  guidance: Guidance | undefined,
  generated: number,
  steps: number,
): Pick<SamplingParams, "order" | "threshold" | "entropyBudget" | "blockLength" | "remask"> {
  if (threshold !== undefined && order !== "confidence")
    throw refuse("/threshold", `has no effect in order ${order}: set /order to confidence`);
  if (entropyBudget !== undefined && order !== "entropy")
    throw refuse("/entropy_budget", `has no effect in order ${order}: set /order to entropy`);
  if (guidance && order !== "random")
    throw refuse("/order", `${order} cannot be guided: use order random, or guidance mode none`);
  if (guidance && block_length !== undefined)
    throw refuse("/block_length", "cannot stand beside guidance: leave it out, or use guidance mode none");
  const adaptive =
    threshold !== undefined ? "threshold" : entropyBudget !== undefined ? "entropy_budget" : undefined;
  const blockLength = block_length !== undefined && block_length < generated ? block_length : undefined;
  const blocks = blockLength ? blockCount(generated, blockLength) : 1;
  if (blocks > steps)
    throw refuse(
      "/block_length",
      `makes ${blocks} blocks of ${generated} tokens, and each needs a step of the ${steps}: ` +
        `use at least ${Math.ceil(generated / steps)}, or more steps`,
    );
  return {
    order,
    threshold,
    entropyBudget,
    blockLength,
    ...(remask && remaskOf(remask, guidance, adaptive)),
  };
}

/**
 * Return the remasking of a request with its defaults filled in. Throws InvalidRequestError.
 *
 * @param adaptive field that lets a sample end before its budget, if there is one
 */
function remaskOf(
  { mode, rate, from = 0, to = 1 }: RemaskRequest,
  guidance: Guidance | undefined,
  adaptive: string | undefined,
): Pick<SamplingParams, "remask"> {
  if (guidance)
    throw refuse("/remask", "cannot stand beside guidance: leave it out, or use guidance mode none");
  if (adaptive)
    throw refuse(
      "/remask",
      `cannot stand beside ${adaptive}, which ends when nothing is masked: leave one out`,
    );
  if (from >= to) throw refuse("/remask/from", `must be below /remask/to, which is ${to}`);
  return { remask: { mode, rate, from, to } };
}

/** Return the guidance of a request with the model's defaults filled in; undefined for the plain sampler. */
export function prepareGuidance(model: Model, request: GuidanceRequest | undefined): Guidance | undefined {
  if (!request) return undefined;
  const { mode, ...settings } = request;
  if (mode === "none") {
    const given = Object.entries(settings).find(([, value]) => value !== undefined);
    if (!given) return undefined;
    throw refuse(
      `/guidance/${given[0]}`,
      "has no effect without guidance: leave it out, or set /guidance/mode to rgas",
    );
  }
  const defaults = model.manifest.guidance;
  if (!defaults)
    throw refuse(
      "/guidance/mode",
      `${model.manifest.name} has no discriminator to guide with: use mode none, or another model`,
    );
  const [scaleStart, scaleEnd] = settings.scale ?? [defaults.scale_start, defaults.scale_end];
  return {
    candidates: settings.candidates ?? defaults.candidates,
    scaleStart: scaleStart!,
    scaleEnd: scaleEnd!,
    rerankRatio: settings.rerank_ratio ?? defaults.rerank_ratio,
  };
}
