/** `npm run quality`: samples of several settings through the engine, and what a judge says of them. */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { integer } from "../src/cli/parsers.ts";
import { startEngine } from "../src/cli/start-engine.ts";
import type { Engine } from "../src/engine/engine.ts";
import type { GenerateRequest } from "../src/engine/request.ts";
import { StartupError } from "../src/errors.ts";
import { modelFolder } from "../src/model/model.ts";
import { PACKAGE_ROOT } from "../src/package-root.ts";
import { Progress } from "./cli/progress.ts";
import { flag, interruption, list, oneOf, PYTHON, script } from "./cli/script.ts";
import { draw } from "./report/draw.ts";
import { table } from "./report/table.ts";
import { machine } from "./servers/machine.ts";

interface QualityConfig {
  model: string;
  judge: string[];
  settings: string;
  samples: number;
  length: number;
  keep?: string;
  python: string;
  out?: string;
  picture?: string;
  against: keyof typeof AXES;
}

/**
 * One setting to measure: fields of a request, and the precision of the graphs. Without a request it is
 * held-out stories.
 */
interface Setting {
  name: string;
  precision?: "fp32" | "int8";
  request?: Partial<GenerateRequest>;
  /** Line of the picture that it is a point of. */
  series?: string;
}

/** What a picture shows perplexity against: a figure of each setting, and how its axis is drawn. */
const AXES = {
  entropy: { title: "entropy (nats)", zero: false },
  passes: { title: "passes a sample, of all networks", log: true },
  time: { title: "ms a sample, 16 requests in flight", log: true },
} as const;

/** Samples of a setting: [N][L] tokens, and what they cost. */
interface Samples {
  tokens: number[][];
  /** Of the student, the discriminator and its gradient together, for each sample. */
  passes: number;
  /** For each sample, while all are in flight. */
  milliseconds: number;
}

/** What the judges say of a setting, as `training/didi/tools/judge.py` writes it. */
interface Judged {
  entropy: number;
  /** Shares of 1. */
  words: Record<"known" | "pairs" | "triples" | "distinct" | "repeated", number>;
  /** By each judge; differences are to the first setting, of samples with the same seed. */
  judges: {
    perplexity: number;
    interval: [number, number];
    /** Mean difference of nats a token, and its standard error. */
    difference?: [number, number];
  }[];
}

/** Requests in flight. */
const CLIENTS = 16;

/** Run the samples of a setting: seeds 0 to `count` - 1 on an empty canvas. */
async function sample(
  engine: Engine,
  request: Partial<GenerateRequest>,
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
  return { tokens, passes: passes / samples, milliseconds };
}

/** Start an engine for a setting, run its samples and close the engine. */
async function run(
  { precision }: Setting,
  request: Partial<GenerateRequest>,
  config: QualityConfig,
  done: () => void,
): Promise<Samples> {
  const limits = {
    maxBatchTokens: 2048,
    maxActive: CLIENTS,
    maxQueue: CLIENTS,
    cache: { maxBytes: 0, ttlMs: 0 },
  };
  const where = { model: config.model, device: "cpu" as const, threads: 0 };
  const engine = await startEngine({ ...where, precision: precision ?? "auto" }, limits);
  try {
    await engine.warmUp();
    return await sample(engine, request, config, done);
  } finally {
    await engine.pool.close();
  }
}

/** Return the samples of a setting from the folder `keep`, or run it and write them there. */
async function kept(
  { keep, model, samples, length }: QualityConfig,
  { precision, request }: Setting,
  run: () => Promise<Samples>,
): Promise<Samples> {
  if (keep === undefined) return run();
  const key = JSON.stringify({ model, samples, length, precision, request });
  const file = join(keep, `${createHash("sha256").update(key).digest("hex").slice(0, 16)}.json`);
  if (existsSync(file)) return JSON.parse(readFileSync(file, "utf8")) as Samples;
  const result = await run();
  mkdirSync(keep, { recursive: true });
  writeFileSync(file, JSON.stringify(result));
  return result;
}

/**
 * Return what the judges in Python say of the samples; undefined stands for held-out stories. Throws
 * StartupError if they do not run.
 */
function judged(
  all: readonly (Samples | undefined)[],
  { python, judge, model }: QualityConfig,
): readonly Judged[] {
  const folder = mkdtempSync(join(tmpdir(), "didi-quality-"));
  try {
    const [samples, out] = [join(folder, "samples.json"), join(folder, "judged.json")];
    writeFileSync(samples, JSON.stringify(all.map((one) => one?.tokens ?? null)));
    const tokenizer = join(modelFolder(model), "tokenizer.json");
    const args = ["-P", "-m", "didi.tools.judge", samples, "--tokenizer", tokenizer, "--out", out];
    const env = { ...process.env, PYTHONPATH: join(PACKAGE_ROOT, "training") };
    const { status, stderr, error } = spawnSync(python, [...args, "--judge", ...judge], {
      env,
      encoding: "utf8",
    });
    if (status !== 0)
      throw new StartupError(`the judge does not run (--python): ${error?.message ?? stderr.trim()}`);
    return JSON.parse(readFileSync(out, "utf8")) as Judged[];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Return two tables: what each judge says and what a sample costs, and shares of words. */
function report(
  settings: readonly Setting[],
  all: readonly (Samples | undefined)[],
  scores: readonly Judged[],
  config: QualityConfig,
): string {
  const first = settings[0]!.name;
  const perplexities = settings.map(({ name }, i) => {
    const { entropy, judges } = scores[i]!;
    const byJudge = judges.flatMap(({ perplexity, interval: [low, high], difference }) => [
      `${perplexity.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`,
      i > 0 && difference ? `${difference[0].toFixed(4)} (${difference[1].toFixed(4)})` : "",
    ]);
    const cost = [all[i]?.passes.toFixed(1) ?? "", all[i]?.milliseconds.toFixed(0) ?? ""];
    return [name, entropy.toFixed(3), ...byJudge, ...cost];
  });
  const columns = config.judge.flatMap((judge) => [
    `${basename(judge)}: perplexity (95%)`,
    "nats a token (SE)",
  ]);
  const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
  const words = settings.map(({ name }, i) => {
    const { known, pairs, triples, distinct, repeated } = scores[i]!.words;
    return [name, ...[known, pairs, triples, distinct, repeated].map(percent)];
  });
  return `${machine(config.model)}. ${config.samples} samples of ${config.length} tokens, the same seeds in every row.
Nats a token are the mean of differences from "${first}", with their standard error.

${table(["setting", "entropy", ...columns, "passes", "ms a sample"], perplexities)}

Words that the training text has; pairs and triples in a row that held-out stories have; distinct words of a
text; four words in a row that the text had before.

${table(["setting", "known", "pairs", "triples", "distinct", "repeated"], words)}
`;
}

/** Return a picture of perplexity by the first judge; each setting with a `series` is a point. */
function picture(
  settings: readonly Setting[],
  all: readonly (Samples | undefined)[],
  scores: readonly Judged[],
  { model, judge, samples, against }: QualityConfig,
): Promise<string> {
  const points = settings.flatMap(({ name, series }, i) => {
    const { entropy, judges } = scores[i]!;
    const [low, high] = judges[0]!.interval;
    const x = { entropy, passes: all[i]?.passes, time: all[i]?.milliseconds }[against];
    return series === undefined || x === undefined
      ? []
      : [{ x, y: judges[0]!.perplexity, low, high, series, label: name.replace(`${series}, `, "") }];
  });
  return draw(
    points.toSorted((a, b) => a.x - b.x),
    {
      title: `${model}: perplexity by ${basename(judge[0]!)} against ${AXES[against].title}`,
      subtitle: `${samples} samples a point; bars: 95% intervals`,
      x: AXES[against],
      y: { title: "perplexity (lower is better)", log: true },
      legend: "sampled by",
    },
  );
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
        "without a request: held-out stories",
    ),
    flag("--samples <n>", "samples of each setting", integer(2, 1e6), 512),
    flag("--length <n>", "tokens of a sample", integer(1, 1 << 20), 128),
    flag("--keep <folder>", "keep the samples of each setting here; a later run reads them"),
    PYTHON,
    flag("--out <file>", "write the tables here, as Markdown (default: print them alone)"),
    flag("--picture <file>", "write a picture of the settings that have a `series`, as SVG"),
    flag(
      "--against <figure>",
      `what the picture shows perplexity against: ${Object.keys(AXES).join(", ")}`,
      oneOf(Object.keys(AXES) as (keyof typeof AXES)[]),
      "entropy",
    ),
  ],
  async (config) => {
    if (!config.settings) throw new StartupError("--settings is missing: name a JSON file", 2);
    const settings = JSON.parse(readFileSync(config.settings, "utf8")) as Setting[];
    const stop = interruption();
    const progress = new Progress();
    if (!settings[0]?.request) throw new StartupError("the first setting has no request", 2);
    const all: (Samples | undefined)[] = [];
    for (const setting of settings) {
      if (stop.aborted) return 130;
      const request = setting.request;
      if (!request) {
        all.push(undefined);
        continue;
      }
      let done = 0;
      const tell = () => {
        done++;
        progress.show(() => `${setting.name}: ${done} of ${config.samples} samples `);
      };
      all.push(await kept(config, setting, () => run(setting, request, config, tell)));
    }
    const scores = judged(all, config);
    const text = report(settings, all, scores, config);
    console.log(text);
    if (config.out !== undefined) writeFileSync(config.out, text);
    if (config.picture !== undefined)
      writeFileSync(config.picture, await picture(settings, all, scores, config));
    return 0;
  },
);
