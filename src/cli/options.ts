/** The flags of every command, with their environment variables and defaults. */

import { Option } from "commander";
import { PRECISIONS } from "../model/manifest.ts";
import type { PrecisionChoice } from "../model/precision.ts";
import { type DeviceChoice, deviceChoice } from "./device.ts";
import type { LogFormat } from "./output/log-stream.ts";
import { integer, modelNames, orAuto, origins, redisUrl, toggle } from "./parsers.ts";

/** Settings of every command that runs a model. */
export interface ModelConfig {
  model: string;
  device: DeviceChoice;
  precision: PrecisionChoice;
  threads: number;
}

/** Settings of the server. */
export interface ServeConfig extends Omit<ModelConfig, "model">, AccessConfig {
  /** Names or folders; the first model answers requests that name none. */
  model: string[];
  /** Models in memory at a time; absent: all. */
  maxLoaded?: number;
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
  /** URL; absent: quotas and cache stay in this process. */
  redis?: string;
  grace: number;
  logLevel: string;
  logFormat: LogFormat;
  logPrompts: boolean;
}

/** Settings of the listener and of access to it. */
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

export const MODEL_FLAGS = "--model <name|folder>";

/** The shipped model. */
const DEFAULT_MODELS = ["stories-didi"];

/** Flags of the device. */
export const DEVICE_OPTIONS: readonly Option[] = [
  new Option("--device <device>", "device of the model; auto uses CUDA if it loads, otherwise the CPU")
    .env("DIDI_DEVICE")
    .argParser(deviceChoice)
    .default("auto"),
  new Option("--threads <n>", "threads of one pass; 0 is one for each core")
    .env("DIDI_THREADS")
    .argParser(integer(0, 1024))
    .default(0),
];

const PRECISION_OPTION = new Option(
  "--precision <precision>",
  "of the matrix products; auto is fp16 on CUDA, int8 on a CPU with 8-bit dot products, else fp32",
)
  .env("DIDI_PRECISION")
  .choices(["auto", ...PRECISIONS])
  .default("auto");

/** Flags of every command that runs a model. */
export const MODEL_OPTIONS: readonly Option[] = [
  new Option(MODEL_FLAGS, "name of a model under models/, or path of a model folder")
    .env("DIDI_MODEL")
    .default(DEFAULT_MODELS[0]),
  ...DEVICE_OPTIONS,
  PRECISION_OPTION,
];

const KILOBYTES = integer(1, 1 << 20);

/** Flags of access, and of the size of requests. */
const ACCESS_OPTIONS: readonly Option[] = [
  new Option(
    "--api-keys <file>",
    "require an API key of this file (see didi-serve keys) on every route except health and pages",
  ).env("DIDI_API_KEYS"),
  toggle(
    "--insecure",
    "allow a --host other than the loopback interface without --api-keys",
    "DIDI_INSECURE",
  ),
  new Option("--allow-origin <origin>", "origin whose pages may use the server from a browser; repeatable")
    .env("DIDI_ALLOW_ORIGIN")
    .argParser(origins),
  new Option("--tls-cert <file>", "TLS certificate with its chain, PEM; needs --tls-key").env(
    "DIDI_TLS_CERT",
  ),
  new Option("--tls-key <file>", "private key of the certificate, PEM").env("DIDI_TLS_KEY"),
  new Option("--admin-port <n>", "separate port for /metrics and /docs; 0 picks a free one")
    .env("DIDI_ADMIN_PORT")
    .argParser(integer(0, 65_535)),
  new Option("--admin-host <address>", "address of the admin port")
    .env("DIDI_ADMIN_HOST")
    .default("127.0.0.1"),
  new Option("--max-body-kb <n>", "largest request body in KiB; a larger one gets 413")
    .env("DIDI_MAX_BODY_KB")
    .argParser(KILOBYTES)
    .default(1024),
  new Option(
    "--max-message-kb <n>",
    "largest WebSocket message in KiB; a larger one closes the socket with 1009",
  )
    .env("DIDI_MAX_MESSAGE_KB")
    .argParser(KILOBYTES)
    .default(1024),
  new Option("--max-header-kb <n>", "largest request headers in KiB; larger ones get 431")
    .env("DIDI_MAX_HEADER_KB")
    .argParser(integer(1, 1024))
    .default(16),
  new Option(
    "--request-timeout <seconds>",
    "time in which a whole request must arrive; otherwise it gets 408",
  )
    .env("DIDI_REQUEST_TIMEOUT")
    .argParser(integer(1, 3600))
    .default(30),
  new Option("--max-connections <n>", "connections at a time; further ones are closed")
    .env("DIDI_MAX_CONNECTIONS")
    .argParser(integer(1, 1 << 20))
    .default(4096),
];

/** Flags of `serve`. */
export const SERVE_OPTIONS: readonly Option[] = [
  new Option("--host <address>", "address to listen on").env("DIDI_HOST").default("127.0.0.1"),
  new Option("--port <n>", "port to listen on; 0 picks a free one")
    .env("DIDI_PORT")
    .argParser(integer(0, 65_535))
    .default(8080),
  new Option(
    MODEL_FLAGS,
    "name of a model under models/, or path of a model folder; repeatable: further ones load on demand",
  )
    .env("DIDI_MODEL")
    .argParser(modelNames(DEFAULT_MODELS))
    .default(DEFAULT_MODELS, JSON.stringify(DEFAULT_MODELS[0])),
  new Option(
    "--max-loaded <n>",
    "models in memory at a time; the least recently used makes room (default: all)",
  )
    .env("DIDI_MAX_LOADED")
    .argParser(integer(1, 256)),
  ...DEVICE_OPTIONS,
  PRECISION_OPTION,
  new Option("--workers <n>", "processes that run a model, each with its own copy and --threads")
    .env("DIDI_WORKERS")
    .argParser(integer(1, 256))
    .default(1),
  new Option("--runtimes <n>").env("DIDI_RUNTIMES").argParser(integer(1, 256)).hideHelp(),
  new Option(
    "--split <n>",
    "parts of a batch on the CPU, each with a share of --threads and own weights; auto: 2 for a small model",
  )
    .env("DIDI_SPLIT")
    .argParser(orAuto(integer(1, 256)))
    .default("auto"),
  new Option(
    "--max-batch-tokens <n>",
    "most padded tokens in a batch; auto measures the size above which throughput stops rising",
  )
    .env("DIDI_MAX_BATCH_TOKENS")
    .argParser(orAuto(integer(1, 1 << 24)))
    .default("auto"),
  new Option("--max-active <n>", "most samples denoised at the same time; further ones wait in the queue")
    .env("DIDI_MAX_ACTIVE")
    .argParser(integer(1, 4096))
    .default(64),
  new Option("--max-queue <n>", "most requests that wait; further ones get 429")
    .env("DIDI_MAX_QUEUE")
    .argParser(integer(0, 1 << 20))
    .default(256),
  new Option("--cache-mb <n>", "megabytes of cached answers to requests with a seed; 0 disables the cache")
    .env("DIDI_CACHE_MB")
    .argParser(integer(0, 1 << 20))
    .default(64),
  new Option("--cache-ttl <seconds>", "time that an answer stays in the cache")
    .env("DIDI_CACHE_TTL")
    .argParser(integer(1, 1 << 30))
    .default(3600),
  new Option("--redis <url>", "Redis through which servers of the same model share quotas and cached answers")
    .env("DIDI_REDIS")
    .argParser(redisUrl),
  new Option("--grace <seconds>", "time that running requests have to finish after SIGTERM")
    .env("DIDI_GRACE")
    .argParser(integer(0, 3600))
    .default(20),
  new Option("--log-level <level>", "lowest level that is logged")
    .env("DIDI_LOG_LEVEL")
    .choices(["silent", "error", "warn", "info", "debug"])
    .default("info"),
  new Option("--log-format <format>", "text for people, or JSON; auto is pretty on a terminal, else json")
    .env("DIDI_LOG_FORMAT")
    .choices(["auto", "pretty", "json"])
    .default("auto"),
  toggle("--log-prompts", "log prompts and generated texts", "DIDI_LOG_PROMPTS"),
  ...ACCESS_OPTIONS,
];
