/** `npm run quality`: samples of several settings through the engine, and what a judge says of them. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { integer } from "../../src/cli/parsers.ts";
import { StartupError } from "../../src/errors.ts";
import { modelFolder } from "../../src/model/model.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { Progress } from "../cli/progress.ts";
import { flag, interruption, list, oneOf, PYTHON, script } from "../cli/script.ts";
import { judged } from "./judge.ts";
import { AXES, figures, picture, type ReportConfig, report } from "./report.ts";
import { type Samples, type Setting, samplesOf } from "./sample.ts";
import { storeQuality } from "./store.ts";

interface QualityConfig extends ReportConfig {
  settings: string;
  python: string;
  out?: string;
  json?: string;
  picture?: string;
  store: boolean;
}

await script<QualityConfig>(
  "quality",
  "Sample with several settings, and measure generative perplexity and entropy of each.",
  [
    flag("--model <name|folder>", "model to sample from", undefined, "stories-didi"),
    flag(
      "--judge <folder,...>",
      "causal models that judge, or smollm2 (training/requirements-judge.txt)",
      list(String),
      [join(PACKAGE_ROOT, "models", "stories-judge")],
    ),
    flag(
      "--settings <file>",
      'JSON: [{"name": "8 steps", "precision": "int8", "request": {"steps": 8}}, ...]; ' +
        "samples of other models and held-out text are rows too (docs/load-testing.md)",
    ),
    flag("--samples <n>", "samples of each setting", integer(2, 1e6), 512),
    flag("--length <n>", "tokens of a sample", integer(1, 1 << 20), 128),
    flag("--keep <folder>", "keep the samples of each setting here; a later run reads them"),
    PYTHON,
    flag("--out <file>", "write the tables here, as Markdown (default: print them alone)"),
    flag("--json <file>", "write settings and figures here"),
    flag("--picture <file>", "write a picture of the settings that have a `series`, as SVG"),
    flag(
      "--against <figure>",
      `what the picture shows perplexity against: ${Object.keys(AXES).join(", ")}`,
      oneOf(Object.keys(AXES) as (keyof typeof AXES)[]),
      "entropy",
    ),
    flag("--store", 'write perplexity and entropy by steps into the model\'s model.json, for steps "auto"'),
  ],
  async (config) => {
    if (!config.settings) throw new StartupError("--settings is missing: name a JSON file", 2);
    const settings = JSON.parse(readFileSync(config.settings, "utf8")) as Setting[];
    const stop = interruption();
    const progress = new Progress();
    if (!settings[0]?.request) throw new StartupError("the first setting has no request", 2);
    const all: (Samples | undefined)[] = [];
    for (const setting of settings) {
      let done = 0;
      const tell = () => {
        done++;
        progress.show(() => `${setting.name}: ${done} of ${config.samples} samples `);
      };
      try {
        all.push(await samplesOf(setting, config, tell, stop));
      } catch (error) {
        if (stop.aborted) return 130;
        throw error;
      }
    }
    const scores = judged(settings, all, config);
    const text = report(settings, all, scores, config);
    console.log(text);
    if (config.out !== undefined) writeFileSync(config.out, text);
    if (config.json !== undefined) writeFileSync(config.json, figures(settings, all, scores, config));
    if (config.picture !== undefined)
      writeFileSync(config.picture, await picture(settings, all, scores, config));
    if (config.store) storeQuality(join(modelFolder(config.model), "model.json"), settings, scores);
    return 0;
  },
);
