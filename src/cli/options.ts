/** Flags and their environment twins: one table that the command line is built from. */

import { InvalidArgumentError, Option } from "commander";
import { PRECISIONS } from "../model/manifest.ts";
import type { PrecisionChoice } from "../model/precision.ts";
import type { Device } from "../runtime/protocol.ts";
import type { KeyLimits } from "../server/access/key-file.ts";
import { ANY_ORIGIN } from "../server/access/origins.ts";

/** Settings of everything that runs a model. */
export interface ModelConfig {
  model: string;
  device: Device;
  precision: PrecisionChoice;
  threads: number;
}

/** Settings of the server. */
export interface ServeConfig extends ModelConfig, AccessConfig {
  workers: number;
  /** Deprecated name of `workers`. */
  runtimes?: number;
  split: number | "auto";
  maxBatchTokens: number | "auto";
  maxActive: number;
  maxQueue: number;
  /** Megabytes. */
  cacheMb: number;
  /** Seconds. */
  cacheTtl: number;
  /** URL; absent: nothing is shared. */
  redis?: string;
  grace: number;
  logLevel: string;
  logPrompts: boolean;
}

/** Settings of where the server listens, and what it takes from whom. */
export interface AccessConfig {
  host: string;
  port: number;
  adminHost: string;
  adminPort?: number;
  apiKeys?: string;
  insecure: boolean;
  allowOrigin?: string[];
  tlsCert?: string;
  tlsKey?: string;
  /** KiB. */
  maxBodyKb: number;
  maxMessageKb: number;
  maxHeaderKb: number;
  /** Seconds. */
  requestTimeout: number;
  maxConnections: number;
}

/** Settings of the commands that change keys. */
export interface KeysConfig {
  file: string;
  id: string;
  requestsPerMinute?: KeyLimits["requests_per_minute"];
  concurrentRequests?: KeyLimits["concurrent_requests"];
  tokenPassesPerMinute?: KeyLimits["token_passes_per_minute"];
}

/** Reads a flag's value; knows, for people, what it takes. Throws InvalidArgumentError, which commander turns into one line. */
export type Parser<T> = ((text: string) => T) & { values: string };

function parser<T>(values: string, parse: (text: string) => T | undefined): Parser<T> {
  const checked = (text: string) => {
    const value = parse(text);
    if (value === undefined) throw new InvalidArgumentError(`It must be ${values}.`);
    return value;
  };
  return Object.assign(checked, { values });
}

/** Parses an integer in [least, most]. */
export const integer = (least: number, most: number): Parser<number> =>
  parser(`a whole number from ${least} to ${most}`, (text) => {
    const value = Number(text);
    return /^\d+$/.test(text) && value >= least && value <= most ? value : undefined;
  });

/** Parses a number in [least, most]. */
export const decimal = (least: number, most: number): Parser<number> =>
  parser(`a number from ${least} to ${most}`, (text) => {
    const value = Number(text);
    return text.trim() !== "" && value >= least && value <= most ? value : undefined;
  });

/** Parses the URL of a Redis. */
const redisUrl: Parser<string> = parser("redis://HOST:PORT or rediss://HOST:PORT", (text) =>
  /^rediss?:\/\/[^/]/.test(text) && URL.canParse(text) ? text : undefined,
);

/** Parses `auto`, or what `parse` takes. */
const orAuto = (parse: Parser<number>): Parser<number | "auto"> =>
  Object.assign((text: string) => (text === "auto" ? text : parse(text)), {
    values: `auto, or ${parse.values}`,
  });

const ORIGINS = "scheme, host and port such as https://example.org, or *";

/** Parses origins, several divided by commas, and adds them to those of flags before it. */
const origins: Parser<string[]> = Object.assign(
  (text: string, before?: string[]) => [
    ...(before ?? []),
    ...text.split(",").map((part) => {
      const origin = part.trim();
      if (origin === ANY_ORIGIN || (URL.canParse(origin) && new URL(origin).origin === origin)) return origin;
      throw new InvalidArgumentError(`It must be ${ORIGINS}; ${origin} is none.`);
    }),
  ],
  { values: `${ORIGINS}; several with commas` },
);

/** Return an option without a value. */
function toggle(flag: string, description: string, variable: string): Option {
  return new Option(flag, description).env(variable).default(false);
}

/** Unset the variable of an option without a value if it says no: commander takes any value of it for a yes. */
export function unsetIfNo({ required, optional, envVar }: Option): void {
  if (required || optional || envVar === undefined) return;
  if (/^(0|false|no|off)?$/i.test(process.env[envVar] ?? "none")) delete process.env[envVar];
}

const DEVICES: readonly Device[] = ["auto", "cpu", "cuda"];

const MODEL_FLAGS = "--model <name|folder>";

/** Flags of where a model runs. */
const DEVICE_OPTIONS: readonly Option[] = [
  new Option("--device <device>", "where the model runs; auto takes CUDA where it loads")
    .env("DIDI_DEVICE")
    .choices(DEVICES)
    .default("auto"),
  new Option("--threads <n>", "threads of one model call; 0 is one for each core")
    .env("DIDI_THREADS")
    .argParser(integer(0, 1024))
    .default(0),
];

/** Flags of every command that runs a model. */
export const MODEL_OPTIONS: readonly Option[] = [
  new Option(MODEL_FLAGS, "a model under models/, or a path to a folder")
    .env("DIDI_MODEL")
    .default("stories-didi"),
  ...DEVICE_OPTIONS,
  new Option(
    "--precision <precision>",
    "of the model's products; auto is fp16 on CUDA, int8 on a CPU with 8-bit dot products, else fp32",
  )
    .env("DIDI_PRECISION")
    .choices(["auto", ...PRECISIONS])
    .default("auto"),
];

/** Flags of `verify`; what they leave out is the receipt's. */
export const VERIFY_OPTIONS: readonly Option[] = [
  new Option(MODEL_FLAGS, "where the receipt's model lies, if not under models/ by its name"),
  ...DEVICE_OPTIONS,
];

/** Flags of `model check`: every precision is checked. */
export const CHECK_OPTIONS: readonly Option[] = DEVICE_OPTIONS;

const KILOBYTES = integer(1, 1 << 20);

/** Flags of who may come in, and of what a client may send. */
const ACCESS_OPTIONS: readonly Option[] = [
  new Option(
    "--api-keys <file>",
    "ask for one of the keys of this file (didi-serve keys), on every route but health",
  ).env("DIDI_API_KEYS"),
  toggle(
    "--insecure",
    "listen on other addresses than the loopback interface without --api-keys",
    "DIDI_INSECURE",
  ),
  new Option(
    "--allow-origin <origin>",
    "pages that may use the server from a browser, beside its own; repeatable",
  )
    .env("DIDI_ALLOW_ORIGIN")
    .argParser(origins),
  new Option("--tls-cert <file>", "certificate with its chain, PEM; with --tls-key").env("DIDI_TLS_CERT"),
  new Option("--tls-key <file>", "key of the certificate, PEM").env("DIDI_TLS_KEY"),
  new Option("--admin-port <n>", "port of their own for /metrics and /docs; 0 takes a free one")
    .env("DIDI_ADMIN_PORT")
    .argParser(integer(0, 65_535)),
  new Option("--admin-host <address>", "address of the admin port")
    .env("DIDI_ADMIN_HOST")
    .default("127.0.0.1"),
  new Option("--max-body-kb <n>", "KiB of a request's body; larger ones are answered 413")
    .env("DIDI_MAX_BODY_KB")
    .argParser(KILOBYTES)
    .default(1024),
  new Option("--max-message-kb <n>", "KiB of a WebSocket message; larger ones close the socket with 1009")
    .env("DIDI_MAX_MESSAGE_KB")
    .argParser(KILOBYTES)
    .default(1024),
  new Option("--max-header-kb <n>", "KiB of a request's headers; larger ones are answered 431")
    .env("DIDI_MAX_HEADER_KB")
    .argParser(integer(1, 1024))
    .default(16),
  new Option(
    "--request-timeout <seconds>",
    "in which a request must have arrived whole; later is answered 408",
  )
    .env("DIDI_REQUEST_TIMEOUT")
    .argParser(integer(1, 3600))
    .default(30),
  new Option("--max-connections <n>", "connections at a time; more are closed as they come")
    .env("DIDI_MAX_CONNECTIONS")
    .argParser(integer(1, 1 << 20))
    .default(4096),
];

/** The file of keys, which every command about keys needs. */
const KEY_FILE_OPTION = new Option("--file <file>", "the file of keys, as --api-keys takes it")
  .env("DIDI_API_KEYS")
  .makeOptionMandatory();

const KEY_ID_OPTION = new Option(
  "--id <name>",
  "the key's name, in the file and in logs",
).makeOptionMandatory();

const LIMIT = integer(1, Number.MAX_SAFE_INTEGER);

/** Flags of `keys list`. */
export const KEYS_LIST_OPTIONS: readonly Option[] = [
  KEY_FILE_OPTION,
  new Option("--json", "print them as JSON").default(false),
];

/** Flags of `keys remove`. */
export const KEYS_REMOVE_OPTIONS: readonly Option[] = [KEY_FILE_OPTION, KEY_ID_OPTION];

/** Flags of `keys add`. */
export const KEYS_ADD_OPTIONS: readonly Option[] = [
  KEY_FILE_OPTION,
  KEY_ID_OPTION,
  new Option("--requests-per-minute <n>", "requests, WebSocket messages that generate among them").argParser(
    LIMIT,
  ),
  new Option("--concurrent-requests <n>", "generations that wait or run at the same time").argParser(LIMIT),
  new Option(
    "--token-passes-per-minute <n>",
    "canvas tokens (a multiple of 32) times passes of the model, of all samples",
  ).argParser(LIMIT),
];

/** Flags of `model convert`. */
export const CONVERT_OPTIONS: readonly Option[] = [
  new Option(
    "--from <dir>",
    "folder with model.safetensors and discriminator.safetensors",
  ).makeOptionMandatory(),
  new Option("--out <dir>", "model folder to make").makeOptionMandatory(),
  new Option("--kind <kind>", "mdlm is a teacher alone: model.safetensors without a discriminator")
    .choices(["didi-instruct", "mdlm"])
    .default("didi-instruct"),
  new Option("--precision <precision...>", "of the graphs' products; several may be given")
    .choices(PRECISIONS)
    .default(["fp32"]),
  new Option("--calibration <file>", "text like the model's own, from which int8 takes its scales"),
  new Option("--weights <precision>", "what the weights are stored in; fp16 rounds them and halves the file")
    .choices(["fp16", "fp32"])
    .default("fp32"),
  new Option("--true-sigma", "graphs take the noise level, as in the reference's guided sampler").default(
    false,
  ),
  new Option("--keep-mask-logit", "keep the mask's logit, as in the reference's guided sampler").default(
    false,
  ),
  new Option("--name <name>", "the model's name (default: that of the folder)"),
  new Option("--licence <licence>", "licence of the weights, for the manifest"),
  new Option("--heads <n>", "attention heads (default: hidden width / 64)").argParser(integer(1, 1024)),
  new Option("--context <n>", "longest canvas in tokens (default: 1024)").argParser(integer(1, 1 << 20)),
  new Option("--python <program>", "Python 3.11 or newer with training/requirements-convert.txt installed")
    .env("DIDI_PYTHON")
    .default("python3"),
];

/** Flags of `serve`. */
export const SERVE_OPTIONS: readonly Option[] = [
  new Option("--host <address>", "address to listen on").env("DIDI_HOST").default("127.0.0.1"),
  new Option("--port <n>", "port to listen on; 0 takes a free one")
    .env("DIDI_PORT")
    .argParser(integer(0, 65_535))
    .default(8080),
  ...MODEL_OPTIONS,
  new Option("--workers <n>", "processes that run the model, each with a copy of it and --threads of its own")
    .env("DIDI_WORKERS")
    .argParser(integer(1, 256))
    .default(1),
  new Option("--runtimes <n>").env("DIDI_RUNTIMES").argParser(integer(1, 256)).hideHelp(),
  new Option(
    "--split <n>",
    "parts into which calls of several rows are divided on the CPU, each with its share of --threads and a copy of the weights; auto is 2 for a small model",
  )
    .env("DIDI_SPLIT")
    .argParser(orAuto(integer(1, 256)))
    .default("auto"),
  new Option(
    "--max-batch-tokens <n>",
    "padded tokens in one model call; auto measures where the machine stops gaining",
  )
    .env("DIDI_MAX_BATCH_TOKENS")
    .argParser(orAuto(integer(1, 1 << 24)))
    .default("auto"),
  new Option(
    "--max-active <n>",
    "samples denoised side by side, each sample of a request counted; more wait in the queue",
  )
    .env("DIDI_MAX_ACTIVE")
    .argParser(integer(1, 4096))
    .default(64),
  new Option("--max-queue <n>", "requests that wait; more are answered 429")
    .env("DIDI_MAX_QUEUE")
    .argParser(integer(0, 1 << 20))
    .default(256),
  new Option(
    "--cache-mb <n>",
    "megabytes of answers kept for requests that come again with their seed; 0 keeps none",
  )
    .env("DIDI_CACHE_MB")
    .argParser(integer(0, 1 << 20))
    .default(64),
  new Option("--cache-ttl <seconds>", "how long an answer is kept")
    .env("DIDI_CACHE_TTL")
    .argParser(integer(1, 1 << 30))
    .default(3600),
  new Option("--redis <url>", "a Redis through which servers of the same model share quotas and kept answers")
    .env("DIDI_REDIS")
    .argParser(redisUrl),
  new Option("--grace <seconds>", "how long running generations may take to finish after SIGTERM")
    .env("DIDI_GRACE")
    .argParser(integer(0, 3600))
    .default(20),
  new Option("--log-level <level>", "what the log keeps")
    .env("DIDI_LOG_LEVEL")
    .choices(["silent", "error", "warn", "info", "debug"])
    .default("info"),
  toggle("--log-prompts", "let the log keep prompts and texts too", "DIDI_LOG_PROMPTS"),
  ...ACCESS_OPTIONS,
];
