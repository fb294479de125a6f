/**
 * API keys: what they look like, how they are kept, how they are compared.
 *
 * A key is `didi_ID_SECRET`. The id is public: it names the key in the file and in logs, and finds it without comparing
 * secrets. The secret is 256 random bits, of which the file holds a salted HMAC-SHA-256. A slow hash such as scrypt
 * makes guessing dear where secrets are few and human; here there are 2^256, and a slow hash would only make each
 * request dear.
 */

import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { setMaxListeners } from "node:events";
import { StartupError } from "../../errors.ts";
import { type KeyLimits, type KeyRecord, readKeyFile } from "./key-file.ts";

const SECRET_BYTES = 32;

/** An id, and the base64url of 32 bytes. */
const FORMAT = /^didi_([A-Za-z0-9][A-Za-z0-9.-]{0,63})_([A-Za-z0-9_-]{43})$/;

/** True if a text has the form of a key, wherever it comes from. */
export const looksLikeKey = (text: string): boolean => FORMAT.test(text);

/** What is kept of a secret: 32 bytes. */
const digest = (salt: Buffer, secret: string) => createHmac("sha256", salt).update(secret).digest();

/** A new key, to be shown once, and the record to keep of it. `limits` are those of the key. */
export function createKey(id: string, limits: KeyLimits): { key: string; record: KeyRecord } {
  const secret = randomBytes(SECRET_BYTES).toString("base64url");
  const salt = randomBytes(16);
  const hash = digest(salt, secret).toString("base64url");
  const created = new Date().toISOString();
  const kept = { id, salt: salt.toString("base64url"), hash, created };
  return {
    key: `didi_${id}_${secret}`,
    record: Object.keys(limits).length > 0 ? { ...kept, limits } : kept,
  };
}

/** A key that the server knows. */
export class ApiKey {
  readonly id: string;
  readonly #salt: Buffer;
  readonly #hash: Buffer;
  readonly #revocation = new AbortController();
  /** What it may use; changes when the file is read again. */
  limits: KeyLimits;

  constructor({ id, salt, hash, limits = {} }: KeyRecord) {
    this.id = id;
    this.#salt = Buffer.from(salt, "base64url");
    this.#hash = Buffer.from(hash, "base64url");
    this.limits = limits;
    // One listener for each connection.
    setMaxListeners(0, this.#revocation.signal);
  }

  /** Aborted once the key is no longer in the file. */
  get revoked(): AbortSignal {
    return this.#revocation.signal;
  }

  /** Whether it is the key of this secret; takes the same time whatever the answer is. */
  matches(secret: string): boolean {
    return timingSafeEqual(digest(this.#salt, secret), this.#hash);
  }

  /** Whether it is kept under the same hash as `other`. */
  equals(other: ApiKey): boolean {
    return this.id === other.id && this.#hash.equals(other.#hash) && this.#salt.equals(other.#salt);
  }

  /** Ends every connection that listens to `revoked`. */
  revoke(): void {
    this.#revocation.abort();
  }
}

/** Compared with where an id is unknown, so that the time of an answer does not tell which ids there are. */
const NOBODY = new ApiKey(createKey("nobody", {}).record);

/** The keys of a file. */
export class KeyRing {
  #keys = new Map<string, ApiKey>();

  private constructor(readonly path: string) {}

  /** Reads a key file. Throws StartupError naming the line at fault. */
  static async open(path: string): Promise<KeyRing> {
    const ring = new KeyRing(path);
    await ring.reload();
    return ring;
  }

  /** How many keys there are. */
  get size(): number {
    return this.#keys.size;
  }

  /** The key that a client gave; undefined if it is none of these. */
  find(given: string): ApiKey | undefined {
    const [, id, secret] = FORMAT.exec(given) ?? [];
    if (id === undefined || secret === undefined) return undefined;
    const key = this.#keys.get(id);
    return (key ?? NOBODY).matches(secret) ? key : undefined;
  }

  /**
   * Reads the file again: keys that are gone or were replaced are revoked, the others go on with the limits that they
   * now have. Throws StartupError if the file cannot be used; the keys are then as before.
   */
  async reload(): Promise<{ added: number; revoked: number }> {
    const next = new Map<string, ApiKey>();
    for (const record of await readKeyFile(this.path)) {
      const key = new ApiKey(record);
      const known = this.#keys.get(record.id);
      if (known?.equals(key)) known.limits = key.limits;
      next.set(record.id, known?.equals(key) ? known : key);
    }
    const [before, after] = [new Set(this.#keys.values()), new Set(next.values())];
    const [gone, fresh] = [
      [...before].filter((key) => !after.has(key)),
      [...after].filter((key) => !before.has(key)),
    ];
    this.#keys = next;
    for (const key of gone) key.revoke();
    return { added: fresh.length, revoked: gone.length };
  }
}

/** Throws StartupError unless `id` can be that of a key. */
export function checkKeyId(id: string): void {
  if (!looksLikeKey(`didi_${id}_${"A".repeat(43)}`))
    throw new StartupError(`--id ${id} must be 1 to 64 letters, digits, dots and dashes, no dash first`, 2);
}
