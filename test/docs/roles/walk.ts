/**
 * Follow a page from its first code block to its last, as a reader would: in a fresh clone, with a home
 * folder of its own, one shell for all commands and a terminal of its own for a server in the foreground.
 */

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { PACKAGE_ROOT } from "../../../src/package-root.ts";
import { freePort } from "../../support/programs.ts";
import { type Block, blocksOf, commandsOf } from "../blocks.ts";
import { reasonNotToRun } from "../not-run.ts";

/**
 * Ports that the documents name. Each walk takes free ones in their place, in the documents and in deploy/.
 */
const PORTS = [8080, 8081, 8082, 8443, 9081, 9082, 9091, 6380];
const WITH_PORTS = [
  ...["docs/start.md", "docs/bring-a-model.md", "docs/operate.md"],
  ...["deploy/nginx/nginx.conf", "deploy/prometheus/prometheus.yml"],
];

/** A command that stays in the foreground. */
const SERVER = /(^|&& )npm start( |$)/m;
const READY = / ready at http/;
const POLL_MS = 50;

/** What a walk left: the output of each block, and the folder that stands for the root of the machine. */
export interface Walked {
  ran: Ran[];
  root: string;
}

/** What a block printed, and how long it took. */
export interface Ran {
  block: Block;
  output: string;
  seconds: number;
}

/** A shell that runs one block after the other. */
class Terminal {
  output = "";
  #child: ChildProcess;
  #blocks = 0;

  constructor(
    readonly clone: string,
    env: NodeJS.ProcessEnv,
  ) {
    // A process group of its own, so that what it starts can be ended with it.
    this.#child = spawn("bash", ["-e", "-o", "pipefail"], { cwd: clone, env, detached: true });
    const keep = (text: string) => {
      this.output += text;
    };
    this.#child.stdout!.setEncoding("utf8").on("data", keep);
    this.#child.stderr!.setEncoding("utf8").on("data", keep);
  }

  /** Run a text to its end, or until `ready` matches. Return what it printed. Throws if a command fails. */
  async run(text: string, limitMs: number, ready?: RegExp): Promise<string> {
    const from = this.output.length;
    const file = join(dirname(this.clone), `block-${process.pid}-${this.#blocks}-${this.#child.pid}.sh`);
    const end = `<<<end of block ${this.#blocks++}>>>`;
    writeFileSync(file, text);
    this.#child.stdin!.write(`source '${file}' </dev/null\necho '${end}'\n`);
    const late = performance.now() + limitMs;
    for (;;) {
      const printed = this.output.slice(from);
      if (printed.includes(end)) return printed.replace(`${end}\n`, "");
      if (ready?.test(printed)) return printed;
      if (this.#child.exitCode !== null) throw new Error(`a command failed:\n${text}\n${printed}`);
      if (performance.now() > late)
        throw new Error(`not done after ${limitMs / 1000} s:\n${text}\n${printed}`);
      await sleep(POLL_MS);
    }
  }

  /** End the shell and all that it started. */
  async close(): Promise<void> {
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      try {
        process.kill(-this.#child.pid!, signal);
      } catch {
        return; // nothing is left of the group
      }
      for (let waited = 0; waited < 5000; waited += POLL_MS) {
        try {
          process.kill(-this.#child.pid!, 0);
        } catch {
          return;
        }
        await sleep(POLL_MS);
      }
    }
  }
}

/** Write into `clone` the files that a commit of the working tree would have. */
function cloneTo(clone: string): void {
  const files = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: PACKAGE_ROOT,
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  for (const file of files.split("\0")) {
    const from = join(PACKAGE_ROOT, file);
    if (file === "" || !existsSync(from)) continue;
    mkdirSync(dirname(join(clone, file)), { recursive: true });
    cpSync(from, join(clone, file));
  }
}

/** Return the commands of a block that are run, and null if there are none. */
function textOf(block: Block, hasEnvironment: boolean): string | null {
  const commands = commandsOf(block);
  // The gate has made an environment of the same packages: installing 6 GB again would show nothing new.
  const installs = (command: string) =>
    hasEnvironment && /^(python3 -m venv|\S+\/pip install) /.test(command);
  const left = commands.filter(
    (command) => SERVER.test(command) || !(reasonNotToRun(command) || installs(command)),
  );
  if (left.length === 0) return null;
  return left.length === commands.length ? block.text : left.join("\n");
}

/** Folders of the machine that the documents write to, and that a walk has under a folder of its own. */
const SYSTEM = ["etc/nginx", "etc/prometheus", "etc/systemd/system", "opt"];

/**
 * Return a text that writes under `root` instead of into /etc and /opt, and needs no user that is not there.
 */
const moveSystem = (text: string, root: string) =>
  text.replace(/(?<=\s)\/(?=(etc|opt)\/)/g, `${root}/`).replaceAll(" -g didi-serve", "");

/** Return the Python environment of .ci/run with training/requirements.txt; undefined if it was not made. */
export function preparedEnvironment(): string | undefined {
  const cache = process.env.XDG_CACHE_HOME ?? join(process.env.HOME ?? "", ".cache");
  const requirements = readFileSync(join(PACKAGE_ROOT, "training", "requirements.txt"));
  const hash = createHash("sha256").update(requirements).digest("hex").slice(0, 16);
  const path = join(cache, "didi-serve", `venv-${hash}`);
  return existsSync(join(path, "complete")) ? path : undefined;
}

/** Return what the one block printed whose text matches. */
export function outputOf(ran: readonly Ran[], pattern: RegExp): string {
  const found = ran.filter(({ block }) => pattern.test(block.text));
  assert.equal(found.length, 1, `${found.length} blocks match ${pattern}`);
  return found[0]!.output;
}

/** Print how long each block took, and all together. */
function printTimes(t: TestContext, ran: readonly Ran[]): void {
  const line = (seconds: number, what: string) =>
    t.diagnostic(`${seconds.toFixed(1).padStart(7)} s  ${what}`);
  for (const { block, seconds } of ran) line(seconds, `${block.where}  ${block.text.split("\n")[0]}`);
  line(
    ran.reduce((sum, { seconds }) => sum + seconds, 0),
    "in all",
  );
}

/**
 * Follow a page in a fresh clone and return what each block printed. Print how long each took. What the page
 * writes into /etc and /opt goes into a folder in their place.
 *
 * A block of JavaScript or Python that begins with a comment such as `// stream.mjs` is saved under that
 * name. A block with `npm start` runs in a terminal of its own, until the server says that it is ready.
 * Throws at the first command that fails. Ends everything that it started.
 *
 * @param until heading after which nothing is run, such as "The published checkpoint"
 */
export async function walk(t: TestContext, page: string, limitMs: number, until?: string): Promise<Walked> {
  const folder = mkdtempSync(join(tmpdir(), "didi-walk-"));
  // Two copies of node_modules: rm takes seconds, rmSync minutes.
  after(() => execFileSync("rm", ["-rf", folder]));
  const clone = join(folder, "didi-serve");
  const home = join(folder, "home");
  const root = join(folder, "root");
  for (const name of SYSTEM) mkdirSync(join(root, name), { recursive: true });
  mkdirSync(home, { recursive: true });
  cloneTo(clone);
  const ports = new Map<number, number>();
  for (const port of PORTS) ports.set(port, await freePort());
  for (const file of WITH_PORTS) {
    const path = join(clone, file);
    const text = readFileSync(path, "utf8");
    writeFileSync(
      path,
      text.replace(/\b\d{4}\b/g, (number) => `${ports.get(Number(number)) ?? number}`),
    );
  }
  const prepared = preparedEnvironment();
  if (prepared) symlinkSync(prepared, join(home, "didi-venv"));

  const env = {
    ...process.env,
    HOME: home,
    PATH: `${process.env.PATH}:/usr/sbin`,
    // Packages that were fetched before are not fetched again.
    npm_config_cache:
      process.env.npm_config_cache ??
      execFileSync("npm", ["config", "get", "cache"], { encoding: "utf8" }).trim(),
    DIDI_PORT: `${ports.get(8080)}`,
  };
  const terminals = [new Terminal(clone, env)];
  const ran: Ran[] = [];
  const started = performance.now();
  try {
    const source = readFileSync(join(clone, page), "utf8");
    const last = until
      ? source.slice(0, source.indexOf(`\n## ${until}`)).split("\n").length
      : Number.POSITIVE_INFINITY;
    for (const block of blocksOf(page, clone)) {
      if (Number(block.where.split(":").at(-1)) > last) break;
      const name = /^(?:\/\/|#) (\S+\.(?:mjs|py))\n/.exec(block.text)?.[1];
      if (name) writeFileSync(join(clone, name), block.text);
      const commands = block.language === "sh" ? textOf(block, prepared !== undefined) : null;
      if (commands === null) continue;
      const text = moveSystem(commands, root);
      const since = performance.now();
      const left = limitMs - (since - started);
      let output: string;
      if (SERVER.test(text)) {
        const terminal = new Terminal(clone, env);
        terminals.push(terminal);
        output = await terminal.run(text, left, READY);
      } else output = await terminals[0]!.run(text, left);
      ran.push({ block, output, seconds: (performance.now() - since) / 1000 });
    }
  } finally {
    for (const terminal of terminals) await terminal.close();
    printTimes(t, ran);
  }
  return { ran, root };
}
