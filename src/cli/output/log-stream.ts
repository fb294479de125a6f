/** Standard output as the destination of the log. */

import { writeSync } from "node:fs";
import { prettyLine } from "./pretty-line.ts";

/** How lines are written: `auto` is `pretty` on a terminal, and `json` elsewhere. */
export type LogFormat = "auto" | "pretty" | "json";

/** Bytes that may wait for a slow reader of the log; further lines are dropped. */
const MOST_WAITING = 1024 * 1024;

/** Without a listener, an error of standard output would end the process. */
const ignore = () => {};

/**
 * Return a stream that writes log lines to standard output and drops those that cannot be written.
 *
 * The logger's own writer would block the event loop until a full disk has room again.
 */
export function createLogStream(format: LogFormat): { write(line: string): void } {
  // Off first: one listener is enough for several servers in one process.
  process.stdout.off("error", ignore).on("error", ignore);
  const pretty = format === "pretty" || (format === "auto" && process.stdout.isTTY);
  return {
    write(json) {
      const line = pretty ? prettyLine(json) : json;
      const { writable, writableLength } = process.stdout;
      if (writable && writableLength < MOST_WAITING) process.stdout.write(line);
      if (writable) return;
      try {
        // A stream does not recover from an error, but the disk may have room again.
        writeSync(1, line);
      } catch {
        // Still no room: the line is dropped.
      }
    },
  };
}
