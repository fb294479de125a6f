/** `didi-serve keys`: the file of API keys. */

import { type LimitName, StartupError } from "../../errors.ts";
import {
  changeKeyFile,
  type KeyLimits,
  keyFileWarning,
  parseKeys,
  readKeyFile,
} from "../../server/access/key-file.ts";
import { checkKeyId, createKey } from "../../server/access/keys.ts";
import type { KeysConfig } from "../options.ts";

/** Flags' limits in the file's words. */
function limitsOf({ requestsPerMinute, concurrentRequests, tokenPassesPerMinute }: KeysConfig): KeyLimits {
  const given: Record<LimitName, number | undefined> = {
    requests_per_minute: requestsPerMinute,
    concurrent_requests: concurrentRequests,
    token_passes_per_minute: tokenPassesPerMinute,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Whether there is a key of that name. Throws StartupError naming the line at fault. */
const hasKey = (text: string, { file, id }: Pick<KeysConfig, "file" | "id">) =>
  parseKeys(text, file).some((record) => record.id === id);

/** Said on standard error, so that standard output is the answer alone. */
const HINT = "A server that is running takes the file anew on SIGHUP.";

/** Warn on standard error if others can write the file. */
async function warnOfWriters(file: string): Promise<void> {
  const warning = await keyFileWarning(file);
  if (warning) console.error(`warning: ${warning}`);
}

/** Adds a key and prints it; it is not to be had again. Throws StartupError. */
export async function addKey(config: KeysConfig): Promise<void> {
  const { file, id } = config;
  checkKeyId(id);
  const { key, record } = createKey(id, limitsOf(config));
  await changeKeyFile(file, (text) => {
    if (hasKey(text, config))
      throw new StartupError(`${file} has a key ${id} already: choose another --id, or remove it first`, 2);
    return `${text && !text.endsWith("\n") ? `${text}\n` : text}${JSON.stringify(record)}\n`;
  });
  console.log(key);
  console.error(`This is the key ${id}: keep it now, the file holds only its hash. ${HINT}`);
  await warnOfWriters(file);
}

/** Removes a key. Throws StartupError. */
export async function removeKey({ file, id }: KeysConfig): Promise<void> {
  await readKeyFile(file);
  await changeKeyFile(file, (text) => {
    if (!hasKey(text, { file, id }))
      throw new StartupError(
        `${file} has no key ${id}: \`didi-serve keys list\` shows those that there are`,
        2,
      );
    return text
      .split("\n")
      .filter((line) => !/^\s*\{/.test(line) || JSON.parse(line).id !== id)
      .join("\n");
  });
  console.error(`The key ${id} is removed. ${HINT}`);
  await warnOfWriters(file);
}

/** Prints the keys, without what they are checked by. Throws StartupError. */
export async function listKeys({ file, json }: { file: string; json: boolean }): Promise<void> {
  await warnOfWriters(file);
  const keys = (await readKeyFile(file)).map(({ id, created, limits = {} }) => ({ id, created, limits }));
  if (json) return console.log(JSON.stringify(keys, null, 2));
  for (const { id, created, limits } of keys) {
    const allowed = Object.entries(limits).map(([name, value]) => `${value} ${name.replaceAll("_", " ")}`);
    console.log(
      `${id.padEnd(24)} ${created?.slice(0, 10) ?? "undated   "} ${allowed.join(", ") || "no limits"}`,
    );
  }
}
