/** `didi-serve keys`: add, list and revoke API keys. */

import { type LimitName, StartupError } from "../../errors.ts";
import {
  changeKeyFile,
  type KeyLimits,
  keyFileWarning,
  parseKeys,
  readKeyFile,
} from "../../server/access/key-file.ts";
import { checkKeyId, createKey } from "../../server/access/keys.ts";
import type { KeysConfig } from "../command-options.ts";
import { columns } from "../output/terminal.ts";

/** Return the limits under their names in the key file. */
function limitsOf({ requestsPerMinute, concurrentRequests, tokenPassesPerMinute }: KeysConfig): KeyLimits {
  const given: Record<LimitName, number | undefined> = {
    requests_per_minute: requestsPerMinute,
    concurrent_requests: concurrentRequests,
    token_passes_per_minute: tokenPassesPerMinute,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Return whether the file has a key of that name. Throws StartupError that names the wrong line. */
const hasKey = (text: string, { file, id }: Pick<KeysConfig, "file" | "id">) =>
  parseKeys(text, file).some((record) => record.id === id);

/** Goes to standard error, so that standard output holds the key alone. */
const HINT = "A running server reads the file again on SIGHUP.";

/** Warn on standard error if other users can write the file. */
async function warnOfWriters(file: string): Promise<void> {
  const warning = await keyFileWarning(file);
  if (warning) console.error(`warning: ${warning}`);
}

/** Add a key and print it; it cannot be printed again. Throws StartupError. */
export async function addKey(config: KeysConfig): Promise<void> {
  const { file, id } = config;
  checkKeyId(id);
  const { key, record } = createKey(id, limitsOf(config), config.expires);
  await changeKeyFile(file, (text) => {
    if (hasKey(text, config))
      throw new StartupError(
        `${file} already has a key ${id}: choose another --id, or revoke that key first`,
        2,
      );
    return `${text && !text.endsWith("\n") ? `${text}\n` : text}${JSON.stringify(record)}\n`;
  });
  console.log(key);
  console.error(`Save this key (${id}) now: the file holds only its hash. ${HINT}`);
  await warnOfWriters(file);
}

/** Remove a key from the file. Throws StartupError. */
export async function revokeKey({ file, id }: KeysConfig): Promise<void> {
  await readKeyFile(file);
  await changeKeyFile(file, (text) => {
    if (!hasKey(text, { file, id }))
      throw new StartupError(`${file} has no key ${id}: \`didi-serve keys list\` prints the keys`, 2);
    return text
      .split("\n")
      .filter((line) => !/^\s*\{/.test(line) || JSON.parse(line).id !== id)
      .join("\n");
  });
  console.error(`The key ${id} is revoked. ${HINT}`);
  await warnOfWriters(file);
}

/** Print the keys without their hashes. Throws StartupError. */
export async function listKeys({ file, json }: { file: string; json: boolean }): Promise<void> {
  await warnOfWriters(file);
  const keys = (await readKeyFile(file)).map(({ salt: _, hash: __, limits = {}, ...key }) => ({
    ...key,
    limits,
  }));
  if (json) return console.log(JSON.stringify(keys, null, 2));
  const rows = keys.map(({ id, created, expires, limits }) => {
    const expired = expires !== undefined && Date.parse(expires) <= Date.now();
    return [
      id,
      created?.slice(0, 10) ?? "unknown",
      expires === undefined ? "never" : `${expires.slice(0, 10)}${expired ? " (expired)" : ""}`,
      Object.entries(limits)
        .map(([name, value]) => `${value} ${name.replaceAll("_", " ")}`)
        .join(", ") || "none",
    ];
  });
  for (const line of columns([["id", "created", "expires", "limits"], ...rows])) console.log(line);
}
