/** How far the run is: a bar on a terminal, a line now and then elsewhere. */

import { logUpdateStderr } from "log-update";

/** Milliseconds between lines where there is no terminal. */
const QUIET_MS = 10_000;
const WIDTH = 24;

/** Shows progress on standard error. */
export class Progress {
  #said = Number.NEGATIVE_INFINITY;

  constructor(readonly terminal = process.stderr.isTTY) {}

  /** `done` in [0, 1], `secondsLeft` as they are thought to be. */
  show(done: number, secondsLeft: number, what: string): void {
    const left = Math.max(0, Math.round(secondsLeft));
    const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")} left`;
    const percent = `${Math.floor(100 * Math.min(1, done))}%`.padStart(4);
    if (this.terminal) {
      const full = Math.round(WIDTH * Math.min(1, done));
      logUpdateStderr(`${"█".repeat(full)}${"░".repeat(WIDTH - full)} ${percent}  ${clock}  ${what}`);
    } else if (performance.now() - this.#said >= QUIET_MS) {
      this.#said = performance.now();
      process.stderr.write(`${percent}  ${clock}  ${what}\n`);
    }
  }

  /** A line that stays. */
  say(line: string): void {
    if (this.terminal) logUpdateStderr.clear();
    process.stderr.write(`${line}\n`);
  }

  close(): void {
    if (this.terminal) logUpdateStderr.clear();
  }
}
