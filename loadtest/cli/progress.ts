/** Progress on standard error: in place on a terminal, otherwise a line every 10 seconds. */

/** Milliseconds between lines. */
const [TERMINAL_MS, QUIET_MS] = [100, 10_000];

/** Shows progress. */
export class Progress {
  #shown = Number.NEGATIVE_INFINITY;

  constructor(readonly terminal = process.stderr.isTTY) {}

  /** Show the text, unless the last one is too recent. */
  show(text: () => string): void {
    const now = performance.now();
    if (now - this.#shown < (this.terminal ? TERMINAL_MS : QUIET_MS)) return;
    this.#shown = now;
    process.stderr.write(this.terminal ? `\r\x1b[K${text()}` : `${text()}\n`);
  }

  /** Clear the line of a terminal. */
  close(): void {
    if (this.terminal) process.stderr.write("\r\x1b[K");
  }
}

/** Return "42%  1:05 left"; `done` is in [0, 1]. */
export function percentAndClock(done: number, secondsLeft: number): string {
  const left = Math.max(0, Math.round(secondsLeft));
  const percent = `${Math.floor(100 * Math.min(1, done))}%`.padStart(4);
  return `${percent}  ${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")} left`;
}
