/**
 * Python that runs our modules and nothing of the folder that it is started from.
 *
 * By default Python looks for modules in the current directory first, and whoever converts a downloaded checkpoint is
 * often inside it: a `torch.py` among its files would be run. So Python is told to leave that directory out, which it
 * can since 3.11, and is started in a folder of its own.
 */

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { StartupError } from "../errors.ts";
import { PACKAGE_ROOT } from "../package-root.ts";

/** How to install what our modules import. */
export const INSTALL = "pip install -r training/requirements-convert.txt";

/** Where our modules lie. */
const TRAINING = join(PACKAGE_ROOT, "training");

/** The first version that knows `-P`. */
const OLDEST = [3, 11] as const;

/** Python in a folder of its own. Close it when it is done with. */
export class Python {
  private constructor(
    readonly program: string,
    /** An empty folder that nobody else can write: where Python runs, and a place for files it is to read. */
    readonly folder: string,
  ) {}

  /** Find the program and its version. Throws StartupError if it does not run or is older than 3.11. */
  static async open(program: string): Promise<Python> {
    // A path is taken from where the user is, since Python runs elsewhere.
    const path = /[/\\]/.test(program) ? resolve(program) : program;
    const python = new Python(path, await mkdtemp(join(tmpdir(), "didi-python-")));
    try {
      await python.#checkVersion();
      return python;
    } catch (error) {
      await python.close();
      throw error;
    }
  }

  async #checkVersion(): Promise<void> {
    // -I, which is as old as 3.4, leaves out the current directory as -P does, and what users have installed as well.
    const { code, output } = await this.#spawn(
      ["-I", "-c", "import sys; print(*sys.version_info[:3], sep='.')"],
      "pipe",
    );
    const version = /^(\d+)\.(\d+)(\.\d+)?\s*$/.exec(output);
    if (code !== 0 || !version)
      throw new StartupError(
        `${this.program} does not run as Python 3.11 or newer (exit code ${code}): name another with --python`,
      );
    const [major, minor] = [Number(version[1]), Number(version[2])];
    if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]))
      throw new StartupError(
        `${this.program} is Python ${output.trim()}, which would run code from the current directory: name Python 3.11 or newer with --python`,
      );
  }

  /** Run Python with our modules on its path. Resolves with its exit code and, if piped, its output. */
  run(args: readonly string[], stdio: "inherit" | "pipe"): Promise<{ code: number; output: string }> {
    return this.#spawn(["-P", ...args], stdio);
  }

  #spawn(args: readonly string[], stdio: "inherit" | "pipe"): Promise<{ code: number; output: string }> {
    return new Promise((settle, reject) => {
      const child = spawn(this.program, args, {
        stdio: ["ignore", stdio, "inherit"],
        cwd: this.folder,
        // Pythons that this one starts take the variable; the flag is for this one.
        env: { ...process.env, PYTHONPATH: TRAINING, PYTHONSAFEPATH: "1" },
      });
      let output = "";
      child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
        output += chunk;
      });
      // A Ctrl-C in a terminal reaches the child without us. Either way the child ends first, and cleans up.
      const interrupt = () => void (process.stdin.isTTY || child.kill("SIGINT"));
      process.on("SIGINT", interrupt);
      child.once("error", (error) => {
        process.off("SIGINT", interrupt);
        reject(
          new StartupError(
            `cannot run ${this.program} (${(error as NodeJS.ErrnoException).code}): install Python 3.11 or newer, then \`${INSTALL}\`, or name one with --python`,
          ),
        );
      });
      child.once("close", (code, signal) => {
        process.off("SIGINT", interrupt);
        settle({ code: code ?? 128 + (signal ? constants.signals[signal] : 0), output });
      });
    });
  }

  /** Remove its folder. */
  close(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true });
  }
}
