/** The file that keys are kept in: a JSON object a line, so that a line is a key and diffs read well. */

import { open, readFile, rename, rm } from "node:fs/promises";
import { Ajv2020 } from "ajv/dist/2020.js";
import { type LimitName, StartupError } from "../../errors.ts";

/** Most that a key may use; what is absent is not limited. */
export type KeyLimits = Partial<Record<LimitName, number>>;

/** A line of the file. */
export interface KeyRecord {
  id: string;
  /** base64url of 16 bytes. */
  salt: string;
  /** base64url of 32 bytes: HMAC-SHA-256 of the secret under the salt. */
  hash: string;
  /** ISO 8601. */
  created?: string;
  limits?: KeyLimits;
}

const limit = { type: "integer", minimum: 1, maximum: Number.MAX_SAFE_INTEGER };

const validate = new Ajv2020({ allErrors: true }).compile<KeyRecord>({
  type: "object",
  additionalProperties: false,
  required: ["id", "salt", "hash"],
  properties: {
    id: { type: "string", pattern: "^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$" },
    salt: { type: "string", pattern: "^[A-Za-z0-9_-]{22}$" },
    hash: { type: "string", pattern: "^[A-Za-z0-9_-]{43}$" },
    created: { type: "string" },
    limits: {
      type: "object",
      additionalProperties: false,
      properties: {
        requests_per_minute: limit,
        concurrent_generations: limit,
        token_passes_per_minute: limit,
      } satisfies Record<LimitName, object>,
    },
  },
});

/** Parses a line; never repeats what is in it, since it may be a key that was pasted. */
function parseLine(text: string, where: string): KeyRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new StartupError(`${where} is not JSON: let \`didi-serve keys add\` write the file`);
  }
  if (validate(value)) return value;
  const faults = validate.errors!.map(({ instancePath, message }) => `${instancePath || "/"} ${message}`);
  throw new StartupError(`${where} is not a key: ${faults.join("; ")}`);
}

/** Reads the keys; empty lines and those that begin with # are none. Throws StartupError naming the line at fault. */
export async function readKeyFile(path: string): Promise<KeyRecord[]> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new StartupError(`cannot read the API keys of ${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
  return parseKeys(text, path);
}

/** Reads the keys of a file's text; `path` is where it is from. Throws StartupError naming the line at fault. */
export function parseKeys(text: string, path: string): KeyRecord[] {
  const lines = text.split("\n").map((line, i) => ({ text: line.trim(), where: `${path}:${i + 1}` }));
  const keys = new Map<string, KeyRecord>();
  for (const { text, where } of lines) {
    if (text === "" || text.startsWith("#")) continue;
    const record = parseLine(text, where);
    if (keys.has(record.id)) throw new StartupError(`${where}: there is a key ${record.id} already`);
    keys.set(record.id, record);
  }
  return [...keys.values()];
}

/**
 * Changes the file as a whole: a server that reads it sees the keys from before or from after. `change` gets the text,
 * empty if there is no file yet, and gives the new one. Throws StartupError if it cannot be written, or somebody else is
 * at it.
 */
export async function changeKeyFile(path: string, change: (text: string) => string): Promise<void> {
  const draft = `${path}.new`;
  // Made only if it is not there: it keeps two changes apart. Hashes are no secrets of worth, but nobody needs them.
  const file = await open(draft, "wx", 0o600).catch((error: NodeJS.ErrnoException) => {
    throw new StartupError(
      error.code === "EEXIST"
        ? `${draft} is there: another command is changing the keys, or was interrupted; then delete it`
        : `cannot write ${draft}: ${error.code}`,
    );
  });
  try {
    const before = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return "";
      throw new StartupError(`cannot read ${path}: ${error.code}`);
    });
    await file.writeFile(change(before));
    await file.sync();
    await file.close();
    await rename(draft, path);
  } catch (error) {
    await file.close().catch(() => {});
    await rm(draft, { force: true });
    throw error;
  }
}
