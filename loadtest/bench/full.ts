/**
 * `npm run bench:full`: the published model's size, from checkpoint to answers, with random weights.
 *
 * Makes a random checkpoint, converts it, starts the server on it, and measures what `npm run bench` measures.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gpt2Tokenizer, tokenizerFromRanks } from "../../src/model/gpt2-tokenizer.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { StreamClient } from "../../test/http/support.ts";
import { graphCosts } from "./graphs.ts";
import { sayMachine } from "./machine.ts";
import { range, tableHead, tableRow } from "./measure.ts";
import { againstProducts, againstReference, Reference } from "./reference.ts";
import { sayMemory, startServer } from "./server.ts";
import { throughput } from "./serving.ts";

const GPT2_VOCAB = 50_258;
/** Steps of the generations whose steps are timed, and of the longer lengths beside the reference. */
const STEPS = 16;

const SECTIONS = ["steps", "throughput", "graphs", "reference"];

const { values: flags } = parseArgs({
  options: {
    python: { type: "string", default: process.env.DIDI_PYTHON ?? "python3" },
    hidden: { type: "string", default: "768" },
    blocks: { type: "string", default: "12" },
    vocab: { type: "string", default: String(GPT2_VOCAB) },
    cond: { type: "string", default: "128" },
    context: { type: "string", default: "1024" },
    lengths: { type: "string", default: "128,512,1024" },
    steps: { type: "string", default: "1,4,8,16,32,64,128" },
    repeats: { type: "string", default: "3" },
    precision: { type: "string", default: "fp32" },
    folder: { type: "string" },
    only: { type: "string", default: SECTIONS.join(",") },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run bench:full -- [flags]
  --python <program>   with models/training/requirements.txt installed (default python3, env DIDI_PYTHON)
  --hidden <n>         (default 768)   --blocks <n>  (default 12)
  --vocab <n>          ids, the mask included; from 258 (default 50258, with GPT-2's tokenizer)
  --cond <n>           width of the conditioning (default 128)
  --context <n>        longest canvas (default 1024)
  --lengths <n,...>    of the canvases that are timed (default 128,512,1024)
  --steps <n,...>      budgets at the first length (default 1,4,8,16,32,64,128); the others take ${STEPS}
  --repeats <n>        interleaved repeats of each cell (default 3)
  --precision <p>      fp32 or fp16 (default fp32)
  --folder <dir>       where checkpoint and model lie, kept for the next run (default: temporary)
  --only <section,...> of ${SECTIONS.join(", ")} (default: all)
The published size takes 4 GB of disk, several of memory, and half an hour.
Tried small: npm run bench:full -- --hidden 64 --blocks 2 --vocab 512 --lengths 32,64`);
  process.exit(0);
}
const sections = flags.only.split(",");
const unknown = sections.filter((section) => !SECTIONS.includes(section));
if (unknown.length > 0) {
  console.error(`--only: no section ${unknown.join(", ")}; there are ${SECTIONS.join(", ")}`);
  process.exit(2);
}
const numbers = (list: string) => list.split(",").map(Number);
const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;

/** Runs a command to its end, its output shown; returns seconds. */
async function run(command: string, args: string[], env: Record<string, string> = {}): Promise<number> {
  const started = performance.now();
  const child = spawn(command, args, {
    stdio: "inherit",
    env: { ...process.env, ...env },
    cwd: PACKAGE_ROOT,
  });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new Error(`${command} ${args.slice(0, 3).join(" ")} ... exited with ${code}`);
  return (performance.now() - started) / 1000;
}

/** A random checkpoint with a tokenizer that fits, and the model folder that it converts to. */
async function makeModel(checkpoint: string, folder: string): Promise<void> {
  const sizes = ["vocab", "hidden", "blocks", "cond"] as const;
  const args = ["-P", "-m", "didi.random_checkpoint", "--out", checkpoint];
  args.push(...sizes.flatMap((name) => [`--${name}`, flags[name]]));
  const made = await run(flags.python, args, { PYTHONPATH: join(PACKAGE_ROOT, "models", "training") });
  console.log(`random checkpoint: ${made.toFixed(1)} s\n`);
  // A small vocabulary gets one token for each byte.
  const bytes = Array.from({ length: 256 }, (_, b) => Uint8Array.of(b));
  const tokenizer = Number(flags.vocab) >= GPT2_VOCAB ? await gpt2Tokenizer() : tokenizerFromRanks(bytes);
  writeFileSync(join(checkpoint, "tokenizer.json"), JSON.stringify(tokenizer));
  const converting = ["dist/main.js", "model", "convert", "--from", checkpoint, "--out", folder];
  converting.push("--precision", flags.precision, "--context", flags.context, "--python", flags.python);
  const converted = await run(process.execPath, converting);
  const files = readdirSync(folder).map((name) => [name, statSync(join(folder, name)).size] as const);
  const total = files.reduce((sum, [, size]) => sum + size, 0);
  console.log(`\nconversion: ${converted.toFixed(1)} s, folder ${megabytes(total)}`);
}

/** Seconds of each step of one generation of `length` new tokens, as a client sees them. */
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

const root = flags.folder ?? mkdtempSync(join(tmpdir(), "didi-full-"));
mkdirSync(root, { recursive: true });
const [checkpoint, folder] = [join(root, "checkpoint"), join(root, "full-size")];
const lengths = numbers(flags.lengths);
const repeats = Number(flags.repeats);
// A Ctrl-C leaves neither gigabytes nor a server behind.
process.once("exit", () => {
  if (!flags.folder) rmSync(root, { recursive: true, force: true });
});
process.once("SIGINT", () => process.exit(130));

sayMachine("of the published size, random weights");
if (!readdirSync(root).includes("full-size")) await makeModel(checkpoint, folder);
const server = await startServer(folder);
process.once("exit", () => server.child.kill("SIGKILL"));
console.log(`server ready: ${server.readySeconds.toFixed(1)} s`);
sayMemory(server, "when ready");

if (sections.includes("steps")) {
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
if (sections.includes("throughput"))
  await throughput(server, {
    ...{ model: folder, length: lengths[0]!, repeats, seconds: 5 },
    ...{ steps: [STEPS], clients: [1, 4] },
  });
if (sections.includes("graphs")) await graphCosts(folder, lengths[0]!, repeats);
if (!sections.includes("reference")) process.exit(0);
const reference = await Reference.start(flags.python, ["--checkpoint", checkpoint]);
reference.say();
await againstProducts(folder, reference, lengths, 2 * repeats + 1);
const first = numbers(flags.steps).map((steps) => ({ length: lengths[0]!, steps }));
const others = lengths.slice(1).map((length) => ({ length, steps: STEPS }));
await againstReference(server, reference, [...first, ...others], repeats);
reference.close();
process.exit(0);
