/** The key file: one JSON object a line, so that each key is one line of a diff. */

import { type FileHandle, lstat, open, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { type LimitName, StartupError } from "../../errors.ts";
import { createAjv } from "../../json-schema.ts";

/** Limits of a key; an absent limit is unlimited. */
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
  /** ISO 8601, UTC; from then on the key is refused. */
  expires?: string;
  limits?: KeyLimits;
}

const limit = { type: "integer", minimum: 1, maximum: Number.MAX_SAFE_INTEGER };

const validate = createAjv({ allErrors: true }).compile<KeyRecord>({
  type: "object",
  additionalProperties: false,
  required: ["id", "salt", "hash"],
  properties: {
    id: { type: "string", pattern: "^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$" },
    salt: { type: "string", pattern: "^[A-Za-z0-9_-]{22}$" },
    hash: { type: "string", pattern: "^[A-Za-z0-9_-]{43}$" },
    created: { type: "string" },
    expires: { type: "string", pattern: "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}(\\.\\d+)?Z$" },
    limits: {
      type: "object",
      additionalProperties: false,
      properties: {
        requests_per_minute: limit,
        concurrent_requests: limit,
        token_passes_per_minute: limit,
      } satisfies Record<LimitName, object>,
    },
  },
});

/** Parse a line. Errors do not quote it, since it may hold a key that was pasted by mistake. */
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

/** Read the keys of a file. Throws StartupError that names the wrong line. */
export async function readKeyFile(path: string): Promise<KeyRecord[]> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new StartupError(`cannot read the API keys of ${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
  return parseKeys(text, path);
}

/**
 * Parse the text of a key file; empty lines and lines that begin with # are skipped. `path` is for errors.
 * Throws StartupError that names the wrong line.
 */
export function parseKeys(text: string, path: string): KeyRecord[] {
  const lines = text.split("\n").map((line, i) => ({ text: line.trim(), where: `${path}:${i + 1}` }));
  const keys = new Map<string, KeyRecord>();
  for (const { text, where } of lines) {
    if (text === "" || text.startsWith("#")) continue;
    const record = parseLine(text, where);
    if (keys.has(record.id)) throw new StartupError(`${where}: a second key ${record.id}`);
    keys.set(record.id, record);
  }
  return [...keys.values()];
}

/** Return the path with symbolic links resolved. Throws StartupError for a link to a missing file. */
async function resolveKeyFile(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT") throw new StartupError(`cannot read ${path}: ${code}`);
    const isLink = await lstat(path).then(
      (info) => info.isSymbolicLink(),
      () => false,
    );
    if (isLink)
      throw new StartupError(
        `${path} is a symbolic link to a missing file: create the file or remove the link`,
      );
    return path;
  }
}

/** Return a warning if other users can write the file; undefined if they cannot. */
export async function keyFileWarning(path: string): Promise<string | undefined> {
  const info = await stat(path).catch(() => undefined);
  if (!info || process.platform === "win32" || (info.mode & 0o022) === 0) return undefined;
  const who = info.mode & 0o002 ? "every user of this machine" : "its group";
  return `${path} can be written by ${who}, which can add keys: chmod go-w ${path}`;
}

/**
 * Replace the text of the file atomically: a server that reads it sees either the old or the new keys. A
 * symbolic link stays, and its target keeps owner and mode. `change` maps the old text, empty without a file,
 * to the new one. Throws StartupError if the file cannot be written, or another command is changing it.
 */
export async function changeKeyFile(path: string, change: (text: string) => string): Promise<void> {
  const target = await resolveKeyFile(path);
  const draft = `${target}.new`;
  // "wx" fails if the draft exists: it is the lock against another command.
  const file = await open(draft, "wx", 0o600).catch((error: NodeJS.ErrnoException) => {
    throw new StartupError(
      error.code === "EEXIST"
        ? `${draft} exists: another command is changing the keys; if it was interrupted, delete that file`
        : `cannot write ${draft}: ${error.code}`,
    );
  });
  try {
    const before = await readFile(target, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return "";
      throw new StartupError(`cannot read ${path}: ${error.code}`);
    });
    await file.writeFile(change(before));
    await keepOwner(target, file);
    await file.sync();
    await file.close();
    await rename(draft, target);
  } catch (error) {
    await file.close().catch(() => {});
    await rm(draft, { force: true });
    throw error;
  }
}

/**
 * Give the draft the owner and mode of the file it replaces, so that a server of another user can still read
 * it.
 */
async function keepOwner(target: string, draft: FileHandle): Promise<void> {
  const before = await stat(target).catch(() => undefined);
  if (!before) return;
  const now = await draft.stat();
  if (before.uid !== now.uid || before.gid !== now.gid)
    await draft.chown(before.uid, before.gid).catch((error: NodeJS.ErrnoException) => {
      throw new StartupError(
        `cannot keep the owner of ${target} (${error.code}): change it as that user, or as root`,
      );
    });
  await draft.chmod(before.mode & 0o777);
}
