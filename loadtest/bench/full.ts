/**
 * `npm run bench:full`: the published model's size, from checkpoint to answers, with random weights.
 *
 * Makes a random checkpoint, converts it, starts the server on it, and measures what `npm run bench`
 * measures.
 */

import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer } from "../../src/cli/parsers.ts";
import { StreamClient } from "../../test/server/support.ts";
import { flag, list, oneOf, PYTHON, script } from "../cli/script.ts";
import { machine } from "../servers/machine.ts";
import { Server } from "../servers/server.ts";
import { graphCosts } from "./graphs.ts";
import { range, tableHead, tableRow } from "./measure.ts";
import { GPT2_VOCAB, makeRandomModel } from "./random-model.ts";
import { againstProducts, againstReference, Reference } from "./reference.ts";
import { sayMemory } from "./requests.ts";
import { throughput } from "./serving.ts";

/** Steps of the timed requests, and of the longer lengths in the comparison with the reference. */
const STEPS = 16;

const SECTIONS = ["steps", "throughput", "graphs", "reference"] as const;
const count = integer(1, 1_000_000);

interface Flags {
  hidden: number;
  blocks: number;
  vocab: number;
  cond: number;
  context: number;
  lengths: number[];
  steps: number[];
  repeats: number;
  precision: string;
  folder?: string;
  only: (typeof SECTIONS)[number][];
  python: string;
}

await script<Flags>(
  "bench:full",
  `Measure a model of the published size with random weights, from checkpoint to answers.
It needs 4 GB of disk and half an hour.
Small: npm run bench:full -- --hidden 64 --blocks 2 --vocab 512 --lengths 32,64`,
  [
    flag("--hidden <n>", "width of the model", count, 768),
    flag("--blocks <n>", "blocks of the model", count, 12),
    flag(
      "--vocab <n>",
      "size of the vocabulary, mask included (default: that of GPT-2 and the mask)",
      integer(258, 1 << 20),
      GPT2_VOCAB,
    ),
    flag("--cond <n>", "width of the conditioning", count, 128),
    flag("--context <n>", "longest canvas", count, 1024),
    flag("--lengths <n,...>", "timed lengths of the canvas", list(count), [128, 512, 1024]),
    flag(
      "--steps <n,...>",
      `step budgets at the first length; the other lengths use ${STEPS}`,
      list(count),
      [1, 4, 8, 16, 32, 64, 128],
    ),
    flag("--repeats <n>", "repeats of each measurement, interleaved", count, 3),
    flag("--precision <name>", "fp32 or fp16", oneOf(["fp32", "fp16"]), "fp32"),
    flag("--folder <dir>", "keep checkpoint and model here for the next run (default: a temporary folder)"),
    flag("--only <section,...>", `sections of ${SECTIONS.join(", ")}`, list(oneOf(SECTIONS)), [...SECTIONS]),
    PYTHON,
  ],
  run,
);

/** Return the seconds of each step of one request of `length` new tokens, measured by the client. */
async function stepSeconds(
  client: StreamClient,
  id: string,
  length: number,
  steps: number,
): Promise<number[]> {
  const times: number[] = [];
  const watch = () => {
    const { type } = client.events.at(-1)!;
    if (type === "accepted" || type === "step") times.push(performance.now() / 1000);
  };
  client.socket.on("message", watch);
  client.send({ type: "generate", id, prompt: "", length, steps, seed: 1, guidance: { mode: "none" } });
  const end = await client.end(id);
  client.socket.off("message", watch);
  if (end.type === "error") throw new Error(end.error.detail ?? end.error.title);
  return times.slice(1).map((time, i) => time - times[i]!);
}

async function run(flags: Flags): Promise<number> {
  const { python, lengths, steps, repeats, only } = flags;
  const root = flags.folder ?? mkdtempSync(join(tmpdir(), "didi-full-"));
  mkdirSync(root, { recursive: true });
  const [checkpoint, folder] = [join(root, "checkpoint"), join(root, "full-size")];
  // Remove the gigabytes after Ctrl-C as well.
  process.once("exit", () => {
    if (!flags.folder) rmSync(root, { recursive: true, force: true });
  });
  process.once("SIGINT", () => process.exit(130));

  console.log(machine("of the published size, random weights"));
  if (!readdirSync(root).includes("full-size")) {
    const { precision, ...sizes } = flags;
    await makeRandomModel({ ...sizes, precisions: [precision] }, checkpoint, folder);
  }
  const server = await Server.start(["--model", folder, "--cache-mb", "0"]);
  console.log(`server ready: ${server.readySeconds.toFixed(1)} s`);
  sayMemory(server, "when ready");

  if (only.includes("steps")) {
    const client = await StreamClient.connect(server.origin);
    console.log(`\nSeconds a step, ${STEPS} steps; median (lowest to highest)\n`);
    tableHead("length", "seconds");
    for (const length of lengths) {
      await stepSeconds(client, `warm-${length}`, length, 1);
      tableRow(length, range(await stepSeconds(client, `${length}`, length, STEPS), 3));
    }
    client.socket.close();
    sayMemory(server, "after these");
  }
  if (only.includes("throughput"))
    await throughput(server, {
      ...{ model: folder, length: lengths[0]!, repeats, seconds: 5 },
      ...{ steps: [STEPS], clients: [1, 4] },
    });
  if (only.includes("graphs")) await graphCosts(folder, lengths[0]!, repeats);
  if (!only.includes("reference")) return 0;
  const reference = await Reference.start(python, ["--checkpoint", checkpoint]);
  reference.say();
  await againstProducts(folder, reference, lengths, 2 * repeats + 1);
  const first = steps.map((budget) => ({ length: lengths[0]!, steps: budget }));
  const others = lengths.slice(1).map((length) => ({ length, steps: STEPS }));
  await againstReference(server, reference, [...first, ...others], repeats);
  reference.close();
  return 0;
}
