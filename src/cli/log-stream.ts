/** Standard output as the place of the log. */

import { writeSync } from "node:fs";

/** Bytes that may wait for a reader of the log; lines beyond are lost. */
const MOST_WAITING = 1024 * 1024;

/**
 * Takes a line of the log. One that cannot be written, for a full disk or a reader that is gone, is lost: the server goes
 * on. (The logger's own writer would wait for room on the disk, and nothing would be served meanwhile.)
 */
export function createLogStream(): { write(line: string): void } {
  process.stdout.on("error", () => {});
  return {
    write(line) {
      const { writable, writableLength } = process.stdout;
      if (writable && writableLength < MOST_WAITING) process.stdout.write(line);
      if (writable) return;
      try {
        // A stream that failed stays so, and the disk may have room again.
        writeSync(1, line);
      } catch {
        // As before.
      }
    },
  };
}
