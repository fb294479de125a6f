/** The file that keys are kept in: a JSON object a line, so that a line is a key and diffs read well. */

import { type FileHandle, lstat, open, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { type LimitName, StartupError } from "../../errors.ts";
import { createAjv } from "../../json-schema.ts";

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

const validate = createAjv({ allErrors: true }).compile<KeyRecord>({
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
        concurrent_requests: limit,
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

/** The file that a path means, links followed. Throws StartupError if it is a link to a file that is not there. */
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
        `${path} is a link to a file that is not there: make the file or remove the link`,
      );
    return path;
  }
}

/** What an operator should know of who else can write the file; undefined if nobody can. */
export async function keyFileWarning(path: string): Promise<string | undefined> {
  const info = await stat(path).catch(() => undefined);
  if (!info || process.platform === "win32" || (info.mode & 0o022) === 0) return undefined;
  const who = info.mode & 0o002 ? "every user of this machine" : "its group";
  return `${path} can be written by ${who}, who can give themselves keys: chmod go-w ${path}`;
}

/**
 * Change the file as a whole: a server that reads it sees the keys from before or from after. A link stays, and the file
 * it leads to is changed, with the owner and the mode that it had. `change` gets the text, empty if there is no file yet,
 * and gives the new one. Throws StartupError if it cannot be written, or somebody else is at it.
 */
export async function changeKeyFile(path: string, change: (text: string) => string): Promise<void> {
  const target = await resolveKeyFile(path);
  const draft = `${target}.new`;
  // Made only if it is not there: it keeps two changes apart. Hashes are no secrets of worth, but nobody needs them.
  const file = await open(draft, "wx", 0o600).catch((error: NodeJS.ErrnoException) => {
    throw new StartupError(
      error.code === "EEXIST"
        ? `${draft} is there: another command is changing the keys, or was interrupted; then delete it`
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

/** Give the draft the owner and the mode of the file that it replaces: a server of another user goes on reading it. */
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
