/** Flags of `loadtest sweep`. */

import { InvalidArgumentError, Option } from "commander";
import { decimal, integer, type Parser } from "../../src/cli/parsers.ts";
import { PEERS, type PeerName } from "../servers/peers/names.ts";
import type { ServedTransport } from "../sweep/plan.ts";
import { list, oneOf, PYTHON } from "./script.ts";

/** Settings of `sweep`; a setting is undefined if its flag was not given. */
export interface SweepConfig {
  steps?: number[];
  concurrency?: number[];
  length?: number[];
  guidance?: ("none" | "rgas")[];
  transport?: ServedTransport[];
  mix?: string;
  prompt: string;
  open: boolean;
  rates?: number[];
  /** Milliseconds. */
  p99: number;
  repeats: number;
  /** Seconds. */
  time: number;
  maxRequests: number;
  /** Seconds. */
  timeout: number;
  quick: boolean;
  url?: string;
  iKnow?: string;
  model: string;
  serverFlags: string[];
  peers?: PeerName[];
  python: string;
  checkpoint?: string;
  llamaServer?: string;
  seed: number;
  name?: string;
  out: string;
  overwrite: boolean;
}

const numbers = (parser: Parser<number>) => list(parser);

/** Flags of `sweep`. */
export const SWEEP_OPTIONS: readonly Option[] = [
  new Option("--steps <n,...>", "step budgets").argParser(numbers(integer(1, 1024))),
  new Option("--concurrency <n,...>", "clients of the closed loop").argParser(numbers(integer(1, 1024))),
  new Option("--length <n,...>", "new tokens of a request").argParser(numbers(integer(1, 1 << 20))),
  new Option("--guidance <mode,...>", "none, rgas").argParser(list(oneOf(["none", "rgas"]))),
  new Option("--transport <name,...>", "post, sse, ws").argParser(list(oneOf(["post", "sse", "ws"]))),
  new Option("--mix <file>", "mixed traffic: a JSON list of {name, weight, steps, length, guidance, prompt}"),
  new Option("--prompt <text>", "prompt of every request").default("", "none"),
  new Option("--no-open", "skip the open loop"),
  new Option(
    "--rates <x,...>",
    "arrival rates of the open loop, requests/s (default: raised to the knee)",
  ).argParser(numbers(decimal(0.01, 10_000))),
  new Option("--p99 <ms>", "limit on the 99th percentile of latency that defines the knee")
    .argParser(decimal(1, 3_600_000))
    .default(1000),
  new Option("--repeats <n>", "measurements of each cell, interleaved (default: 5, quick: 3)").argParser(
    integer(1, 100),
  ),
  new Option("--time <seconds>", "duration of the whole run (default: 300, quick: 30)").argParser(
    integer(10, 86_400),
  ),
  new Option("--max-requests <n>", "most requests in total")
    .argParser(integer(1, 10_000_000))
    .default(100_000),
  new Option("--timeout <seconds>", "time limit of a request").argParser(integer(1, 3600)).default(60),
  new Option("--quick", "a small grid in less than 40 seconds").default(false),
  new Option("--url <address>", "address of a running server (default: start one)"),
  new Option("--i-know <host>", "the host of --url again, required if it is another machine"),
  new Option("--model <name|folder>", "model of the started server")
    .env("DIDI_MODEL")
    .default("stories-didi"),
  new Option("--server-flags <text>", "flags of the started server, such as '--workers 2'")
    .argParser((text) => text.split(/\s+/).filter(Boolean))
    .default([], "none"),
  new Option("--peers [name,...]", `measure others beside it: ${PEERS.join(", ")} (all without a list)`)
    .argParser(list(oneOf(PEERS)))
    .preset(PEERS.join(",")),
  PYTHON,
  new Option(
    "--checkpoint <folder>",
    "checkpoint for the peer reference, if the model folder has no weights",
  ),
  new Option(
    "--llama-server <program>",
    "program of the peer llama.cpp (default: built by npm run loadtest:peers)",
  ),
  new Option("--seed <n>", "seed of the first request; each has its own (default: from the clock)").argParser(
    integer(0, 2 ** 52),
  ),
  new Option("--name <name>", "name of the results (default: model and time)").argParser((text) => {
    if (!/^[\w.-]{1,100}$/.test(text)) throw new InvalidArgumentError("It must be a plain file name.");
    return text;
  }),
  new Option("--out <folder>", "folder in which the folder of the results is created").default("results"),
  new Option("--overwrite", "replace existing results of that name").default(false),
];

/** Fill in the defaults that depend on `--quick` and the clock. */
export function filledIn(
  given: Omit<SweepConfig, "repeats" | "time" | "seed"> & Partial<SweepConfig>,
): SweepConfig {
  return {
    ...given,
    repeats: given.repeats ?? (given.quick ? 3 : 5),
    time: given.time ?? (given.quick ? 30 : 300),
    seed: given.seed ?? Date.now() * 1000,
  };
}
