/** `npm run quality`: samples of several settings through the engine, and what a judge says of them. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer } from "../src/cli/parsers.ts";
import { startEngine } from "../src/cli/start-engine.ts";
import type { Engine } from "../src/engine/engine.ts";
import type { GenerateRequest } from "../src/engine/request.ts";
import { StartupError } from "../src/errors.ts";
import { modelFolder } from "../src/model/model.ts";
import { PACKAGE_ROOT } from "../src/package-root.ts";
import { Progress } from "./cli/progress.ts";
import { flag, interruption, PYTHON, script } from "./cli/script.ts";
import { table } from "./report/table.ts";
import { machine } from "./servers/machine.ts";

interface QualityConfig {
  model: string;
  judge: string;
  settings: string;
  samples: number;
  length: number;
  python: string;
  out?: string;
}

/** One setting to measure: fields of a request, and the precision of the graphs. */
interface Setting {
  name: string;
  precision?: "fp32" | "int8";
  request: Partial<GenerateRequest>;
}

/** Samples of a setting: [N][L] tokens, and what they cost. */
interface Samples {
  name: string;
  tokens: number[][];
  /** Of the student, the discriminator and its gradient together, for each sample. */
  passes: number;
  /** For each sample, while all are in flight. */
  milliseconds: number;
}

/** What the judge says of a setting; differences are to the first setting, of samples with the same seed. */
interface Judged {
  perplexity: number;
  interval: [number, number];
  entropy: number;
  /** Mean difference of nats a token, and its standard error. */
  difference: [number, number];
}

/** Requests in flight. */
const CLIENTS = 16;

/** Run the samples of a setting: seeds 0 to `count` - 1 on an empty canvas. */
async function sample(
  engine: Engine,
  { name, request }: Setting,
  { samples, length }: QualityConfig,
  done: () => void,
): Promise<Samples> {
  const tokens: number[][] = [];
  let passes = 0;
  let next = 0;
  const started = performance.now();
  const client = async () => {
    while (next < samples) {
      const seed = next++;
      const answer = await engine.submit({ prompt: "", length, steps: 16, ...request, seed }).result;
      tokens[seed] = answer.samples[0]!.tokens;
      const { student_passes, discriminator_passes, gradient_passes } = answer.usage;
      passes += student_passes + discriminator_passes + gradient_passes;
      done();
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  const milliseconds = (performance.now() - started) / samples;
  return { name, tokens, passes: passes / samples, milliseconds };
}

/** Return what the judge in Python says of the samples. Throws StartupError if it does not run. */
function judged(all: readonly Samples[], { python, judge, model }: QualityConfig): Judged[] {
  const folder = mkdtempSync(join(tmpdir(), "didi-quality-"));
  try {
    const [samples, out] = [join(folder, "samples.json"), join(folder, "judged.json")];
    writeFileSync(samples, JSON.stringify(all.map(({ tokens }) => tokens)));
    const args = ["-P", "-m", "didi.tools.judge", samples, "--judge", judge, "--out", out];
    if (judge === "smollm2") args.push("--tokenizer", join(modelFolder(model), "tokenizer.json"));
    const env = { ...process.env, PYTHONPATH: join(PACKAGE_ROOT, "training") };
    const { status, stderr, error } = spawnSync(python, args, { env, encoding: "utf8" });
    if (status !== 0)
      throw new StartupError(`the judge does not run (--python): ${error?.message ?? stderr.trim()}`);
    return JSON.parse(readFileSync(out, "utf8")) as Judged[];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function report(all: readonly Samples[], scores: readonly Judged[], config: QualityConfig): string {
  const rows = all.map(({ name, passes, milliseconds }, i) => {
    const { perplexity, interval, entropy, difference } = scores[i]!;
    const [low, high] = interval;
    const [mean, error] = difference;
    return [
      name,
      `${perplexity.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`,
      entropy.toFixed(3),
      i === 0 ? "" : `${mean.toFixed(4)} (${error.toFixed(4)})`,
      passes.toFixed(1),
      milliseconds.toFixed(0),
    ];
  });
  const first = all[0]!.name;
  const columns = ["setting", "perplexity (95%)", "entropy", `nats a token above ${first} (standard error)`];
  const samples = `${config.samples} samples of ${config.length} tokens, the same seeds in every row.`;
  return `${machine(config.model)}. ${samples}

${table([...columns, "passes", "ms a sample"], rows)}
`;
}

await script<QualityConfig>(
  "quality",
  "Sample with several settings, and measure generative perplexity and entropy of each.",
  [
    flag("--model <name|folder>", "model to sample from", undefined, "stories-didi"),
    flag(
      "--judge <folder>",
      "causal model that judges, or smollm2 (training/requirements-judge.txt)",
      undefined,
      join(PACKAGE_ROOT, "models", "stories-judge"),
    ),
    flag(
      "--settings <file>",
      'JSON: [{"name": "8 steps", "precision": "int8", "request": {"steps": 8}}, ...]',
    ),
    flag("--samples <n>", "samples of each setting", integer(2, 1e6), 512),
    flag("--length <n>", "tokens of a sample", integer(1, 1 << 20), 128),
    PYTHON,
    flag("--out <file>", "write the table here, as Markdown (default: print it alone)"),
  ],
  async (config) => {
    if (!config.settings) throw new StartupError("--settings is missing: name a JSON file", 2);
    const settings = JSON.parse(readFileSync(config.settings, "utf8")) as Setting[];
    const stop = interruption();
    const progress = new Progress();
    const all: Samples[] = [];
    for (const setting of settings) {
      if (stop.aborted) return 130;
      const limits = {
        maxBatchTokens: 2048,
        maxActive: CLIENTS,
        maxQueue: CLIENTS,
        cache: { maxBytes: 0, ttlMs: 0 },
      };
      const where = { model: config.model, device: "cpu" as const, threads: 0 };
      const engine = await startEngine({ ...where, precision: setting.precision ?? "auto" }, limits);
      let done = 0;
      try {
        await engine.warmUp();
        const tell = () => {
          done++;
          progress.show(() => `${setting.name}: ${done} of ${config.samples} samples `);
        };
        all.push(await sample(engine, setting, config, tell));
      } finally {
        await engine.pool.close();
      }
    }
    const text = report(all, judged(all, config), config);
    console.log(text);
    if (config.out !== undefined) writeFileSync(config.out, text);
    return 0;
  },
);
