/**
 * `npm run bench:full`: the published model's size, from checkpoint to answers, with random weights.
 *
 * Makes a random checkpoint, converts it, starts the server on it and times its steps.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gpt2Tokenizer, tokenizerFromRanks } from "../src/model/gpt2-tokenizer.ts";
import { PACKAGE_ROOT } from "../src/package-root.ts";
import { StreamClient } from "../test/http/support.ts";
import { untilReady } from "../tools/until-ready.ts";

const GPT2_VOCAB = 50_258;

const { values: flags } = parseArgs({
  options: {
    python: { type: "string", default: process.env.DIDI_PYTHON ?? "python3" },
    hidden: { type: "string", default: "768" },
    blocks: { type: "string", default: "12" },
    vocab: { type: "string", default: String(GPT2_VOCAB) },
    cond: { type: "string", default: "128" },
    context: { type: "string", default: "1024" },
    lengths: { type: "string", default: "128,512,1024" },
    steps: { type: "string", default: "8" },
    precision: { type: "string", default: "fp32" },
    threads: { type: "string", default: "0" },
    folder: { type: "string" },
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
  --steps <n>          of each generation (default 8)
  --precision <p>      fp32 or fp16 (default fp32)
  --threads <n>        of the server's model (default 0: one for each core)
  --folder <dir>       time a folder that is converted already
The published size takes 4 GB of disk in the temporary folder, removed at the end, and several of memory.
Tried small: npm run bench:full -- --hidden 64 --blocks 2 --vocab 512 --lengths 32,64`);
  process.exit(0);
}

const now = () => performance.now() / 1000;
const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;

/** Runs a command to its end, its output shown; returns seconds. */
async function run(command: string, args: string[], env: Record<string, string> = {}): Promise<number> {
  const started = now();
  const child = spawn(command, args, {
    stdio: "inherit",
    env: { ...process.env, ...env },
    cwd: PACKAGE_ROOT,
  });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new Error(`${command} ${args.slice(0, 3).join(" ")} ... exited with ${code}`);
  return now() - started;
}

/** A random checkpoint with a tokenizer that fits, converted; returns the model folder. */
async function makeModel(root: string): Promise<string> {
  const checkpoint = join(root, "checkpoint");
  const sizes = ["vocab", "hidden", "blocks", "cond"] as const;
  const args = ["-m", "didi.random_checkpoint", "--out", checkpoint];
  args.push(...sizes.flatMap((name) => [`--${name}`, flags[name]]));
  const made = await run(flags.python, args, { PYTHONPATH: join(PACKAGE_ROOT, "models", "training") });
  console.log(`random checkpoint: ${made.toFixed(1)} s\n`);
  // A small vocabulary gets one token for each byte.
  const bytes = Array.from({ length: 256 }, (_, b) => Uint8Array.of(b));
  const tokenizer = Number(flags.vocab) >= GPT2_VOCAB ? await gpt2Tokenizer() : tokenizerFromRanks(bytes);
  writeFileSync(join(checkpoint, "tokenizer.json"), JSON.stringify(tokenizer));
  const folder = join(root, "full-size");
  const converting = ["dist/main.js", "model", "convert", "--from", checkpoint, "--out", folder];
  converting.push("--precision", flags.precision, "--context", flags.context, "--python", flags.python);
  const converted = await run(process.execPath, converting);
  const files = readdirSync(folder).map((name) => [name, statSync(join(folder, name)).size] as const);
  const total = files.reduce((sum, [, size]) => sum + size, 0);
  const graphs = files.filter(([name]) => name.endsWith(".onnx"));
  console.log(
    `\nconversion: ${converted.toFixed(1)} s, folder ${megabytes(total)} ` +
      `(${graphs.map(([name, size]) => `${name} ${megabytes(size)}`).join(", ")})`,
  );
  return folder;
}

/** Resident memory of a process and of its children; undefined where there is no /proc. */
function memory(pid: number): { server: number; runtime: number } | undefined {
  const resident = (id: number) =>
    Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1] ?? 0) * 1024;
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
      .trim()
      .split(/\s+/)
      .map(Number);
    return { server: resident(pid), runtime: children.reduce((sum, id) => sum + resident(id), 0) };
  } catch {
    return undefined;
  }
}

function sayMemory(child: ChildProcess, when: string): void {
  const used = memory(child.pid!);
  if (used)
    console.log(
      `memory ${when}: server ${megabytes(used.server)}, runtime process ${megabytes(used.runtime)}`,
    );
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
    if (type === "accepted" || type === "step") times.push(now());
  };
  client.socket.on("message", watch);
  client.send({ type: "generate", id, prompt: "", length, steps, seed: 1 });
  const end = await client.end(id);
  client.socket.off("message", watch);
  if (end.type === "error") throw new Error(end.error.detail ?? end.error.title);
  return times.slice(1).map((time, i) => time - times[i]!);
}

const root = mkdtempSync(join(tmpdir(), "didi-full-"));
let server: ChildProcess | undefined;
// A Ctrl-C leaves neither gigabytes nor a server behind.
process.once("exit", () => {
  server?.kill("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});
process.once("SIGINT", () => process.exit(130));

console.log(
  `${cpus().length} x ${cpus()[0]!.model.trim()}, ${megabytes(totalmem())}, Node ${process.version}`,
);
const folder = flags.folder ?? (await makeModel(root));
const started = now();
const args = [
  "dist/main.js",
  "serve",
  "--port",
  "0",
  "--model",
  folder,
  "--log-level",
  "warn",
  "--cache-mb",
  "0",
];
server = spawn(process.execPath, [...args, "--threads", flags.threads], {
  cwd: PACKAGE_ROOT,
  stdio: ["ignore", "pipe", "inherit"],
});
const { origin } = await untilReady(server);
console.log(`server ready: ${(now() - started).toFixed(1)} s`);
sayMemory(server, "when ready");

const client = await StreamClient.connect(origin);
const steps = Number(flags.steps);
console.log(
  `\nSeconds a step, ${steps} steps; median (lowest to highest)\n\n| length | seconds |\n|---|---|`,
);
for (const length of flags.lengths.split(",").map(Number)) {
  await stepSeconds(client, `warm-${length}`, length, 1);
  const seconds = (await stepSeconds(client, `${length}`, length, steps)).sort((a, b) => a - b);
  const middle = (seconds[(seconds.length - 1) >> 1]! + seconds[seconds.length >> 1]!) / 2;
  console.log(
    `| ${length} | ${middle.toFixed(3)} (${seconds[0]!.toFixed(3)} to ${seconds.at(-1)!.toFixed(3)}) |`,
  );
}
console.log();
sayMemory(server, "after these");
client.socket.close();
process.exit(0);
