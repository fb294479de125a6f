/** The flags of the commands other than `serve`. */

import { Option } from "commander";
import { FAMILIES } from "../model/foreign.ts";
import { PRECISIONS } from "../model/manifest.ts";
import type { KeyLimits } from "../server/access/key-file.ts";
import { DEVICE_OPTIONS, MODEL_FLAGS, MODEL_OPTIONS } from "./options.ts";
import { decimal, integer, moment, orAuto } from "./parsers.ts";

/** Settings of the commands that change the key file. */
export interface KeysConfig {
  file: string;
  id: string;
  /** ISO 8601, UTC; absent: never. */
  expires?: string;
  requestsPerMinute?: KeyLimits["requests_per_minute"];
  concurrentRequests?: KeyLimits["concurrent_requests"];
  tokenPassesPerMinute?: KeyLimits["token_passes_per_minute"];
}

/** Flags of `generate`. */
export const GENERATE_OPTIONS: readonly Option[] = [
  new Option("--length <n>", "new tokens (default: 128, or as many as fit)").argParser(integer(1, 1 << 20)),
  new Option("--template <text>", "text with spans, {{mask:N}} or {{choice:…}}, instead of a prompt"),
  new Option("--choose <how>", "which option of a {{choice:…}} span to fill in (default: likeliest)").choices(
    ["likeliest", "draw"],
  ),
  new Option("--steps <n>", "step budget; auto takes that of --quality, or the best for --deadline")
    .argParser(orAuto(integer(1, 1024)))
    .default(16),
  new Option("--quality <quality>", "with --steps auto: as many steps as measured for it").choices([
    "draft",
    "normal",
    "best",
  ]),
  new Option("--seed <n>", "seed (default: random)").argParser(integer(0, Number.MAX_SAFE_INTEGER)),
  new Option(
    "--temperature <x>",
    "sampling temperature; 0 takes the most likely token (default: the model's own, or 1 beside --top-k or --top-p)",
  ).argParser(decimal(0, 2)),
  new Option(
    "--top-k <n>",
    "sample from the k most likely tokens; 0 disables (default: as --temperature)",
  ).argParser(integer(0, 1 << 20)),
  new Option(
    "--top-p <x>",
    "sample from the smallest set of tokens with this total probability; 1 disables (default: as --temperature)",
  ).argParser(decimal(1e-6, 1)),
  new Option("--order <order>", "order in which positions are revealed (default: the model's own)").choices([
    "random",
    "spread",
    "confidence",
    "entropy",
    "margin",
  ]),
  new Option(
    "--threshold <p>",
    "with --order confidence: also reveal tokens of at least this probability",
  ).argParser(decimal(0, 1)),
  new Option(
    "--entropy-budget <nats>",
    "with --order entropy: also reveal positions while their entropies add up to at most this",
  ).argParser(decimal(0, 1e6)),
  new Option("--block-length <n>", "generate in blocks of n tokens, from the left").argParser(
    integer(1, 1 << 20),
  ),
  new Option(
    "--remask <rate>",
    "mask unlikely tokens again, at this rate, for later steps to correct",
  ).argParser(decimal(1e-6, 1)),
  new Option("--guidance <mode>", "rgas: reward-guided sampling with the model's discriminator")
    .choices(["none", "rgas"])
    .default("none"),
  new Option("--n <n>", "samples in the answer").argParser(integer(1, 16)).default(1),
  new Option(
    "--best-of <n>",
    "samples to generate, of which the --n with the highest reward are printed",
  ).argParser(integer(1, 16)),
  new Option("--stop <text>", "text before which a generated span ends; repeatable").argParser(
    (text: string, before: string[] = []) => [...before, text],
  ),
  new Option("--deadline <ms>", "milliseconds after which one last pass reveals the rest").argParser(
    integer(1, 3_600_000),
  ),
  new Option("--logprobs", "with --json: the log-probability of each generated token").default(false),
  new Option("--show-steps", "show each denoising step in place").default(false),
  new Option("--json", "print the whole answer as JSON").default(false),
  ...MODEL_OPTIONS,
];

/** Flags of `verify`; the receipt gives the other settings. */
export const VERIFY_OPTIONS: readonly Option[] = [
  new Option(MODEL_FLAGS, "model of the receipt (default: the model of that name under models/)"),
  ...DEVICE_OPTIONS,
];

/** Flags of `model check`, which checks every precision. */
export const CHECK_OPTIONS: readonly Option[] = DEVICE_OPTIONS;

/** Flag of every command on API keys. */
const KEY_FILE_OPTION = new Option("--file <file>", "the key file, the same as for --api-keys")
  .env("DIDI_API_KEYS")
  .makeOptionMandatory();

const KEY_ID_OPTION = new Option(
  "--id <name>",
  "name of the key in the file and in logs",
).makeOptionMandatory();

const LIMIT = integer(1, Number.MAX_SAFE_INTEGER);

/** Flags of `keys list`. */
export const KEYS_LIST_OPTIONS: readonly Option[] = [
  KEY_FILE_OPTION,
  new Option("--json", "print the keys as JSON").default(false),
];

/** Flags of `keys revoke`. */
export const KEYS_REVOKE_OPTIONS: readonly Option[] = [KEY_FILE_OPTION, KEY_ID_OPTION];

/** Flags of `keys add`. */
export const KEYS_ADD_OPTIONS: readonly Option[] = [
  KEY_FILE_OPTION,
  KEY_ID_OPTION,
  new Option("--expires <date>", "date or time from which the key is refused (default: never)").argParser(
    moment,
  ),
  new Option("--requests-per-minute <n>", "most requests a minute, WebSocket messages included").argParser(
    LIMIT,
  ),
  new Option("--concurrent-requests <n>", "most requests that wait or run at the same time").argParser(LIMIT),
  new Option(
    "--token-passes-per-minute <n>",
    "most token passes a minute: padded tokens of the canvas times passes, over all samples",
  ).argParser(LIMIT),
];

/** Flags of `model convert`. */
export const CONVERT_OPTIONS: readonly Option[] = [
  new Option(
    "--from <dir>",
    "folder with config.json, model.safetensors (or its parts) and tokenizer.json",
  ).makeOptionMandatory(),
  new Option("--out <dir>", "model folder to write").makeOptionMandatory(),
  new Option("--family <family>", "what the network is; auto asks config.json")
    .choices(["auto", ...FAMILIES])
    .default("auto"),
  new Option("--precision <precision...>", "precisions of the graphs' matrix products")
    .choices(PRECISIONS)
    .default(["fp32"]),
  new Option(
    "--calibration <file>",
    "text like the training data, from which int8 of didi-instruct, mdlm and idlm takes its scales",
  ),
  new Option("--weights <precision>", "type of the stored weights; fp16 rounds them and halves the file")
    .choices(["fp16", "fp32"])
    .default("fp32"),
  new Option("--true-sigma", "graphs take the noise level, as in the reference's guided sampler").default(
    false,
  ),
  new Option("--keep-mask-logit", "keep the mask's logit, as in the reference's guided sampler").default(
    false,
  ),
  new Option("--name <name>", "name of the model (default: the name of the folder)"),
  new Option("--licence <licence>", "licence of the weights, for the manifest"),
  new Option("--heads <n>", "attention heads; must divide the hidden width (default: width / 64)").argParser(
    integer(1, 1024),
  ),
  new Option(
    "--context <n>",
    "longest canvas in tokens (default: by config.json, at most 4096; else 1024)",
  ).argParser(integer(1, 1 << 20)),
  new Option("--python <program>", "Python 3.11 or newer with training/requirements-convert.txt installed")
    .env("DIDI_PYTHON")
    .default("python3"),
];
