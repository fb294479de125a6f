/**
 * Every code block of the documents runs against a server on a free port, or not-run.ts says why it does not.
 */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { load } from "js-yaml";
import ts from "typescript";

import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { serve } from "../server/support.ts";
import { findProgram } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";
import { type Block, blocksOf, commandsOf, FILES } from "./blocks.ts";
import { idleExceptions, reasonNotToRun } from "./not-run.ts";

const CLIENT = pathToFileURL(join(PACKAGE_ROOT, "src", "client", "index.ts")).href;
const COMMAND = `node --import ${import.meta.resolve("tsx")} ${join(PACKAGE_ROOT, "src", "main.ts")}`;
const TIMEOUT_MS = 120_000;
const run = promisify(execFile);

/**
 * Pages whose blocks belong together: roles/ follows each from its first block to its last, and `npm run
 * cluster` that of Kubernetes.
 */
const WALKED = ["docs/start.md", "docs/bring-a-model.md", "docs/operate.md", "docs/operate/kubernetes.md"];
const everyBlock = FILES.flatMap((file) => blocksOf(file));
const blocks = everyBlock.filter(({ where }) => !WALKED.some((page) => where.startsWith(`${page}:`)));
const root = scratch("blocks");
/** The output of each shell block. */
const outputs = new Map<Block, string>();

const { origin } = await serve();

/** Return a text with the server's address in place of the documents', for HTTP and for WebSockets. */
const here = (text: string) => text.replaceAll("127.0.0.1:8080", new URL(origin).host);

async function runShell(command: string): Promise<string> {
  // The sources: npm would build first. In a folder of its own: some commands write files.
  const ours = here(command).replaceAll("npx didi-serve", COMMAND);
  const { stdout } = await run("bash", ["-euo", "pipefail", "-c", ours], { cwd: root, timeout: TIMEOUT_MS });
  return stdout;
}

/** Run a module from its text, as `node FILE` in the folder of the repository would. */
async function runModule(text: string): Promise<string> {
  const { stdout } = await run(
    process.execPath,
    ["--import", "tsx", "--input-type=module", "--eval", here(text)],
    { cwd: PACKAGE_ROOT, timeout: TIMEOUT_MS },
  );
  return stdout;
}

/** Return the compiler's messages about a block, as a package that uses ours gets them. */
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

/** Check that each field of a shortened object is in the whole one; `…` stands for what is left out. */
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

/** Check a configuration of Prometheus with promtool, if it is installed. */
async function checkScrape(text: string): Promise<void> {
  const parsed = load(text) as { scrape_configs?: unknown[] };
  assert.ok(Array.isArray(parsed.scrape_configs), "only configurations of Prometheus are known");
  const promtool = findProgram("promtool");
  if (!promtool) return;
  const file = join(root, "prometheus.yml");
  await writeFile(file, text);
  // The files that it names are not here.
  await run(promtool, ["check", "config", "--syntax-only", file]);
}

const CHECKS: Record<string, (block: Block) => Promise<void>> = {
  async sh(block) {
    let output = "";
    const commands = commandsOf(block);
    if (commands.some(reasonNotToRun)) {
      for (const command of commands) if (!reasonNotToRun(command)) output += await runShell(command);
    } else output = await runShell(block.text);
    outputs.set(block, output);
    if (!commands.every(reasonNotToRun)) assert.notEqual(output, "", "it printed nothing");
    // An example of an error says so.
    if (!/\berrors?\b/i.test(block.before)) assert.doesNotMatch(output, /urn:didi-serve:problem|"error":/);
  },
  async js({ text }) {
    assert.notEqual(await runModule(text), "", "it printed nothing");
  },
  async python({ where }) {
    // rewards.full.ts runs it.
    assert.match(where, /^docs\/rewards\.md:/);
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
  // A drawing.
  async text() {},
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

/** Return why no command of a block is run; false if one is. */
function skipReason(block: Block): string | false {
  if (block.language !== "sh") return false;
  const reasons = commandsOf(block).map(reasonNotToRun);
  return reasons.every((reason) => reason !== undefined) && [...new Set(reasons)].join("; ");
}

test("blocks of each kind were found, and each exception matches a command", () => {
  for (const language of Object.keys(CHECKS)) assert.ok(blocks.some((block) => block.language === language));
  const commands = everyBlock.filter(({ language }) => language === "sh").flatMap(commandsOf);
  assert.ok(commands.filter((command) => !reasonNotToRun(command)).length >= 20);
  assert.deepEqual(idleExceptions(commands), [], "these match no command any more");
});
