/** Flags and their environment twins: one table that the command line is built from. */

import { InvalidArgumentError, Option } from "commander";
import { PRECISIONS } from "./model/manifest.ts";
import type { PrecisionChoice } from "./model/model.ts";
import type { Device } from "./runtime/protocol.ts";

/** Settings of everything that runs a model. */
export interface ModelConfig {
  model: string;
  device: Device;
  precision: PrecisionChoice;
  threads: number;
}

/** Settings of the server. */
export interface ServeConfig extends ModelConfig {
  host: string;
  port: number;
  runtimes: number;
  maxBatchTokens: number | "auto";
  maxActive: number;
  maxQueue: number;
  /** Megabytes. */
  cacheMb: number;
  /** Seconds. */
  cacheTtl: number;
  grace: number;
  logLevel: string;
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

/** Parses `auto`, or what `parse` takes. */
const orAuto = (parse: Parser<number>): Parser<number | "auto"> =>
  Object.assign((text: string) => (text === "auto" ? text : parse(text)), {
    values: `auto, or ${parse.values}`,
  });

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
  new Option("--precision <precision>", "of the model's matrices; auto is fp16 on CUDA, else fp32, if there")
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

/** Flags of `serve`. */
export const SERVE_OPTIONS: readonly Option[] = [
  new Option("--host <address>", "address to listen on").env("DIDI_HOST").default("127.0.0.1"),
  new Option("--port <n>", "port to listen on; 0 takes a free one")
    .env("DIDI_PORT")
    .argParser(integer(0, 65_535))
    .default(8080),
  ...MODEL_OPTIONS,
  new Option("--runtimes <n>", "runtime processes side by side, each with the model and --threads of its own")
    .env("DIDI_RUNTIMES")
    .argParser(integer(1, 256))
    .default(1),
  new Option(
    "--max-batch-tokens <n>",
    "padded tokens in one model call; auto measures where the machine stops gaining",
  )
    .env("DIDI_MAX_BATCH_TOKENS")
    .argParser(orAuto(integer(1, 1 << 24)))
    .default("auto"),
  new Option("--max-active <n>", "samples denoised side by side; more wait in the queue")
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
  new Option("--grace <seconds>", "how long running generations may take to finish after SIGTERM")
    .env("DIDI_GRACE")
    .argParser(integer(0, 3600))
    .default(20),
  new Option("--log-level <level>", "what the log keeps")
    .env("DIDI_LOG_LEVEL")
    .choices(["silent", "error", "warn", "info", "debug"])
    .default("info"),
];
