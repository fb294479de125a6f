/**
 * Runs the Python modules of training/, and no code of the current directory.
 *
 * Python looks for modules in the current directory first. Users often convert a downloaded checkpoint from
 * inside its folder, where a file `torch.py` would then be executed. The flag `-P` (Python 3.11) leaves that
 * directory out, and Python is started in an empty folder.
 */

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { StartupError } from "../errors.ts";
import { PACKAGE_ROOT } from "../package-root.ts";

/** How to install what the modules import. */
export const INSTALL = "pip install -r training/requirements-convert.txt";

/** The folder of the modules. */
const TRAINING = join(PACKAGE_ROOT, "training");

/** The first version that knows `-P`. */
const OLDEST = [3, 11] as const;

/** Python in an empty folder, which `close` removes. */
export class Python {
  private constructor(
    readonly program: string,
    /**
     * An empty folder that only this user can write: Python's working directory, and the place for input
     * files.
     */
    readonly folder: string,
  ) {}

  /** Find the program and its version. Throws StartupError if it does not run or is older than 3.11. */
  static async open(program: string): Promise<Python> {
    // A relative path is the user's, and Python runs in another directory.
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
    // -I, known since 3.4, leaves out the current directory as -P does, and the user's own packages as well.
    const { code, output } = await this.#spawn(
      ["-I", "-c", "import sys; print(*sys.version_info[:3], sep='.')"],
      "pipe",
    );
    const version = /^(\d+)\.(\d+)(\.\d+)?\s*$/.exec(output);
    if (code !== 0 || !version)
      throw new StartupError(
        `${this.program} is not Python 3.11 or newer (exit code ${code}): name another with --python`,
      );
    const [major, minor] = [Number(version[1]), Number(version[2])];
    if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1]))
      throw new StartupError(
        `${this.program} is Python ${output.trim()}, which would run code from the current directory: ` +
          "name Python 3.11 or newer with --python",
      );
  }

  /** Run Python with the modules on its path. Resolve with its exit code and, if piped, its output. */
  run(args: readonly string[], stdio: "inherit" | "pipe"): Promise<{ code: number; output: string }> {
    return this.#spawn(["-P", ...args], stdio);
  }

  #spawn(args: readonly string[], stdio: "inherit" | "pipe"): Promise<{ code: number; output: string }> {
    return new Promise((settle, reject) => {
      const child = spawn(this.program, args, {
        stdio: ["ignore", stdio, "inherit"],
        cwd: this.folder,
        // The variable is for Python processes that this one starts.
        env: { ...process.env, PYTHONPATH: TRAINING, PYTHONSAFEPATH: "1" },
      });
      let output = "";
      child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
        output += chunk;
      });
      // A terminal sends Ctrl-C to the child as well. This process outlives the child, so that the folder is
      // removed.
      const interrupt = () => void (process.stdin.isTTY || child.kill("SIGINT"));
      process.on("SIGINT", interrupt);
      child.once("error", (error) => {
        process.off("SIGINT", interrupt);
        reject(
          new StartupError(
            `cannot run ${this.program} (${(error as NodeJS.ErrnoException).code}): ` +
              `install Python 3.11 or newer, then \`${INSTALL}\`, or name one with --python`,
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
