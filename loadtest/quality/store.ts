/** Measured quality, in the manifest of the model. */

import { readFileSync, writeFileSync } from "node:fs";
import type { Manifest, Quality } from "../../src/model/manifest.ts";
import type { Judged } from "./judge.ts";
import type { Setting } from "./sample.ts";

const rounded = (value: number) => Math.round(value * 1e4) / 1e4;

/**
 * Return the rows of `quality` in `model.json`: the settings of the model that give a number of steps, with its
 * default guidance or without, and nothing else. Figures are those of the first judge.
 */
export function measuredQuality(settings: readonly Setting[], scores: readonly Judged[]): Quality[] {
  return settings.flatMap((setting, i) => {
    if (!setting.request || setting.model !== undefined) return [];
    const { steps, guidance, ...others } = setting.request;
    const defaults =
      guidance === undefined || (guidance.mode === "rgas" && Object.keys(guidance).length === 1);
    if (typeof steps !== "number" || !defaults || Object.keys(others).length > 0) return [];
    const { judges, entropy } = scores[i]!;
    const generative_perplexity = rounded(judges[0]!.perplexity);
    const sampler = guidance ? "rgas" : "plain";
    return [{ sampler, steps, generative_perplexity, entropy: rounded(entropy) }];
  });
}

/** Write the measured quality into the manifest at `path`. */
export function storeQuality(path: string, settings: readonly Setting[], scores: readonly Judged[]): void {
  const manifest = JSON.parse(readFileSync(path, "utf8")) as Manifest;
  const quality = measuredQuality(settings, scores);
  writeFileSync(path, `${JSON.stringify({ ...manifest, quality }, undefined, 2)}\n`);
}
