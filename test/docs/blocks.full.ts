/** Every code block of the documentation runs, against a server on a free port, or says why it is not run here. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import type { FastifyInstance } from "fastify";
import { load } from "js-yaml";
import ts from "typescript";

import type { Engine } from "../../src/engine/engine.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { listen } from "../server/support.ts";
import { startEngine } from "../support/engine.ts";
import { findProgram } from "../support/programs.ts";
import { type Block, blocksOf, commandsOf, FILES } from "./blocks.ts";

/** Commands that are not run, each with the reason. */
const NOT_RUN: [command: RegExp, reason: string][] = [
  [/^npm ci && npm start$/, "installs from the network; npm run smoke starts the server so"],
  [/^npm ci && npm test$/, "runs this test"],
  [/^npm ci$/, "installs from the network"],
  [/^npm run cuda -- /, "fetches CUDA binaries from the network"],
  [/^npm start -- .*--device cuda$/, "needs a GPU"],
  [/^huggingface-cli download /, "fetches a checkpoint from the network"],
  [/^pip install /, "installs from the network"],
  [/^kubectl /, "needs a cluster"],
  [/^npm run loadtest -- (--url \S+ )?--quick$/, "takes half a minute; the gate runs it"],
  [
    /^npm run loadtest -- (compare|gate) /,
    "needs the results of two runs; test/loadtest/sweep.full.ts runs it",
  ],
  [/model convert --from didi-instruct-small /, "needs the published checkpoint"],
];

const CLIENT = pathToFileURL(join(PACKAGE_ROOT, "src", "client", "index.ts")).href;
const TIMEOUT_MS = 120_000;
const run = promisify(execFile);

const blocks = FILES.flatMap(blocksOf);
const root = await mkdtemp(join(tmpdir(), "didi-blocks-"));
/** What shell blocks printed. */
const outputs = new Map<Block, string>();

let engine: Engine;
let app: FastifyInstance;
let origin: string;
before(async () => {
  engine = await startEngine();
  ({ app, origin } = await listen(engine));
});
after(async () => {
  await rm(root, { recursive: true });
  await app.close();
  await engine.pool.close();
});

/** The server's address in place of that in the text, for HTTP and for WebSockets. */
const here = (text: string) => text.replaceAll("127.0.0.1:8080", new URL(origin).host);

const reasonNotToRun = (command: string) => NOT_RUN.find(([pattern]) => pattern.test(command))?.[1];

async function runShell(command: string): Promise<string> {
  // The sources, not a build: what npm would build first.
  const ours = here(command)
    .replace("npm run --silent didi-serve --", "node --import tsx src/main.ts")
    .replace("npm run loadtest --", "node --import tsx loadtest/main.ts");
  const { stdout } = await run("bash", ["-euo", "pipefail", "-c", ours], {
    cwd: PACKAGE_ROOT,
    timeout: TIMEOUT_MS,
  });
  return stdout;
}

/** Runs a module from its text, with what Node 20 lacks of a browser. */
async function runModule(text: string): Promise<string> {
  const script = `import { WebSocket as Socket } from "ws"; globalThis.WebSocket ??= Socket;\n${here(text)}`;
  const { stdout } = await run(
    process.execPath,
    ["--import", "tsx", "--input-type=module", "--eval", script],
    { cwd: PACKAGE_ROOT, timeout: TIMEOUT_MS },
  );
  return stdout;
}

/** What the compiler has to say about a block, as a package that uses ours sees it. */
async function typeFaults(text: string): Promise<string[]> {
  const file = join(root, "block.mts");
  await writeFile(file, text);
  const program = ts.createProgram([file], {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib: ["lib.es2023.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"],
    types: [],
    strict: true,
    noEmit: true,
    allowImportingTsExtensions: true,
    paths: { "didi-serve/client": [join(PACKAGE_ROOT, "src", "client", "index.ts")] },
  });
  return ts
    .getPreEmitDiagnostics(program)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
}

/** Checks that what is shown of an object is in the object; `…` stands for what is left out. */
function checkShown(shown: unknown, actual: unknown, path: string): void {
  if (shown === "…" || shown === null || typeof shown !== "object") {
    if (shown !== "…") assert.equal(typeof actual, typeof shown, path);
    return;
  }
  assert.ok(actual !== null && typeof actual === "object", `${path} is no object in the answer`);
  for (const [key, value] of Object.entries(shown)) {
    if (key === "…" || value === "…") continue;
    assert.ok(key in actual, `${path}/${key} is not in the answer`);
    checkShown(value, (actual as Record<string, unknown>)[key], `${path}/${key}`);
  }
}

/** A configuration of Prometheus, by promtool where it is installed. */
async function checkScrape(text: string): Promise<void> {
  const parsed = load(text) as { scrape_configs?: unknown[] };
  assert.ok(Array.isArray(parsed.scrape_configs), "only configurations of Prometheus are known");
  const promtool = findProgram("promtool");
  if (!promtool) return;
  const file = join(root, "prometheus.yml");
  await writeFile(file, text);
  // The files that it names are somebody else's.
  await run(promtool, ["check", "config", "--syntax-only", file]);
}

const CHECKS: Record<string, (block: Block) => Promise<void>> = {
  async sh(block) {
    let output = "";
    for (const command of commandsOf(block)) if (!reasonNotToRun(command)) output += await runShell(command);
    outputs.set(block, output);
    if (!commandsOf(block).every(reasonNotToRun)) assert.notEqual(output, "", "it printed nothing");
  },
  async js({ text }) {
    assert.notEqual(await runModule(text), "", "it printed nothing");
  },
  async ts({ text }) {
    assert.deepEqual(await typeFaults(text), []);
    const { outputText } = ts.transpileModule(text, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
    });
    assert.notEqual(
      await runModule(outputText.replace("didi-serve/client", CLIENT)),
      "",
      "it printed nothing",
    );
  },
  yaml: ({ text }) => checkScrape(text),
  async json({ text, before, previous }) {
    const shown = JSON.parse(text);
    if (text.includes("…")) assert.match(before, /shortened/, "it leaves out something and does not say so");
    const output = previous && outputs.get(previous);
    if (output?.startsWith("{")) checkShown(shown, JSON.parse(output), "");
  },
};

for (const block of blocks)
  test(`${block.where}, ${block.language}`, { skip: skipReason(block) }, async () => {
    const check = CHECKS[block.language];
    assert.ok(
      check,
      `nothing is known about ${block.language}: mark it sh, js, ts, json or yaml, or add a check`,
    );
    await check(block);
  });

/** Why nothing of a block is run. */
function skipReason(block: Block): string | false {
  if (block.language !== "sh") return false;
  const reasons = commandsOf(block).map(reasonNotToRun);
  return reasons.every((reason) => reason !== undefined) && [...new Set(reasons)].join("; ");
}

test("blocks of each kind were found, and each exception is one of a command that is there", () => {
  for (const language of Object.keys(CHECKS)) assert.ok(blocks.some((block) => block.language === language));
  const commands = blocks.filter(({ language }) => language === "sh").flatMap(commandsOf);
  assert.ok(commands.filter((command) => !reasonNotToRun(command)).length >= 4);
  for (const [pattern] of NOT_RUN)
    assert.ok(
      commands.some((command) => pattern.test(command)),
      `${pattern} is of no command any more`,
    );
});
