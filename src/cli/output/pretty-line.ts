/** Lines of the log as they are shown in a terminal. */

/**
 * A line of the log, parsed: pino's own fields, and those of a request (src/server/telemetry/request-log.ts).
 */
interface LogLine {
  level: number;
  time: number;
  msg?: string;
  method?: string;
  path?: string;
  status?: number;
  total_ms?: number;
  steps?: number;
  cache?: string;
  problem?: string;
  key?: string;
  err?: { stack?: string; message?: string };
}

/** Levels of pino that are named; lines of other levels show none. */
const LEVELS: Record<number, string> = { 20: "debug: ", 40: "warning: ", 50: "error: ", 60: "fatal: " };

const pad = (value: number) => String(value).padStart(2, "0");

/** Return the time of day, on the clock of this machine. */
function clock(time: number): string {
  const date = new Date(time);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(pad).join(":");
}

function milliseconds(value: number): string {
  return value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** What a line of a request says: `POST /generate 200 121 ms 16 steps`. */
function request({ method, path, status, total_ms, steps, cache, problem, key }: LogLine): string {
  const parts = [method, path, status, total_ms !== undefined && milliseconds(total_ms)];
  parts.push(steps !== undefined && `${steps} steps`, cache === "hit" && "cached", problem);
  parts.push(key !== undefined && `key ${key}`);
  return parts.filter((part) => part !== undefined && part !== false).join(" ");
}

/**
 * Return a line of the log for people: the time, and one line for a request; the stack of an error follows
 * it. A line that is not JSON is returned as it is.
 *
 * @example
 * prettyLine('{"level":30,"time":0,"msg":"request","method":"GET","path":"/","status":200,"total_ms":3}')
 */
export function prettyLine(line: string): string {
  let parsed: LogLine;
  try {
    parsed = JSON.parse(line);
  } catch {
    return line;
  }
  const { level, time, msg = "", method, err } = parsed;
  const text = method === undefined ? msg : request(parsed);
  const fault = err ? `\n${err.stack ?? err.message ?? ""}` : "";
  const prefix = method === undefined || level > 30 ? (LEVELS[level] ?? "") : "";
  return `${clock(time)} ${prefix}${text}${fault}\n`;
}
