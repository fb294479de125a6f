/** The quality from the model's card, which a load test cannot measure. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import type { components } from "../../src/server/api-types.ts";
import type { Quality } from "../report/types.ts";
import { keyHeaders } from "../traffic/http.ts";

/** The answer of GET /model. */
export type ModelInfo = components["schemas"]["ModelInfo"];

/** Return the model of a server. Rejects if it is not a didi-serve. */
export async function modelInfo(origin: string): Promise<ModelInfo> {
  const response = await fetch(`${origin}/model`, {
    headers: keyHeaders(),
    signal: AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw new Error(`${origin}/model answers with ${response.status}`);
  return (await response.json()) as ModelInfo;
}

/** Return the model's quality by budget, and the peer's from the card of a shipped model. */
export function qualityOf(info: ModelInfo): Quality[] {
  const own = (info.quality ?? []).map(({ sampler, steps, generative_perplexity }) => ({
    ...{ sampler, steps, perplexity: generative_perplexity },
  }));
  const file = join(PACKAGE_ROOT, "models", info.name, "card", "quality.json");
  if (!/^[\w.-]+$/.test(info.name) || !existsSync(file)) return own;
  const { cells } = JSON.parse(readFileSync(file, "utf8")) as {
    cells: { causal?: string; temperature?: number; judges: { perplexity: number }[] }[];
  };
  const peer = cells.find(({ causal, temperature }) => causal !== undefined && temperature === 1);
  return peer ? [...own, { sampler: "autoregressive", perplexity: peer.judges[0]!.perplexity }] : own;
}
