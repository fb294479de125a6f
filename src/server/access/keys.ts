/**
 * API keys: format, storage and comparison.
 *
 * A key is `didi_ID_SECRET`. The id is public: it names the key in the file and in logs, and the server looks
 * keys up by id without comparing secrets. The secret is 256 random bits; the file holds its salted
 * HMAC-SHA-256. A slow hash such as scrypt protects passwords, which can be guessed; 256 random bits cannot,
 * and a slow hash would slow every request.
 */

import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { setMaxListeners } from "node:events";
import { StartupError } from "../../errors.ts";
import { type KeyLimits, type KeyRecord, readKeyFile } from "./key-file.ts";

const SECRET_BYTES = 32;

/** An id, and the base64url of 32 bytes. */
const FORMAT = /^didi_([A-Za-z0-9][A-Za-z0-9.-]{0,63})_([A-Za-z0-9_-]{43})$/;

/** Return whether a text has the format of a key. */
export const looksLikeKey = (text: string): boolean => FORMAT.test(text);

/** Return the stored hash of a secret: 32 bytes. */
const digest = (salt: Buffer, secret: string) => createHmac("sha256", salt).update(secret).digest();

/** Create a key to print once, and its record for the file. `expires` is an ISO 8601 time; absent: never. */
export function createKey(
  id: string,
  limits: KeyLimits,
  expires?: string,
): { key: string; record: KeyRecord } {
  const secret = randomBytes(SECRET_BYTES).toString("base64url");
  const salt = randomBytes(16);
  const hash = digest(salt, secret).toString("base64url");
  const created = new Date().toISOString();
  const kept = { id, salt: salt.toString("base64url"), hash, created, ...(expires && { expires }) };
  return {
    key: `didi_${id}_${secret}`,
    record: Object.keys(limits).length > 0 ? { ...kept, limits } : kept,
  };
}

/** A key of the file. */
export class ApiKey {
  readonly id: string;
  readonly #salt: Buffer;
  readonly #hash: Buffer;
  readonly #revocation = new AbortController();
  /** Limits of the key; a reload of the file may change them. */
  limits: KeyLimits;
  /**
   * Time of expiry in milliseconds since 1970; infinite if the key does not expire. A reload may change it.
   */
  expiresAt: number;

  constructor({ id, salt, hash, limits = {}, expires }: KeyRecord) {
    this.id = id;
    this.#salt = Buffer.from(salt, "base64url");
    this.#hash = Buffer.from(hash, "base64url");
    this.limits = limits;
    this.expiresAt = expires === undefined ? Number.POSITIVE_INFINITY : Date.parse(expires);
    // Every connection adds a listener.
    setMaxListeners(0, this.#revocation.signal);
  }

  /** Aborted when the key is revoked. */
  get revoked(): AbortSignal {
    return this.#revocation.signal;
  }

  /** Return whether this is the secret of the key, in constant time. */
  matches(secret: string): boolean {
    return timingSafeEqual(digest(this.#salt, secret), this.#hash);
  }

  /** Return whether both records are of the same key. */
  equals(other: ApiKey): boolean {
    return this.id === other.id && this.#hash.equals(other.#hash) && this.#salt.equals(other.#salt);
  }

  /** End every connection that listens to `revoked`. */
  revoke(): void {
    this.#revocation.abort();
  }
}

/** Compared with an unknown id, so that the response time does not show which ids exist. */
const DUMMY = new ApiKey(createKey("dummy", {}).record);

/** Longest delay of a timer in milliseconds: Node treats a longer one as 1. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

/** The keys of a file. */
export class KeyRing {
  #keys = new Map<string, ApiKey>();
  #expiry: NodeJS.Timeout | undefined;

  private constructor(readonly path: string) {}

  /** Read a key file. Throws StartupError that names the wrong line. */
  static async open(path: string): Promise<KeyRing> {
    const ring = new KeyRing(path);
    await ring.reload();
    return ring;
  }

  /** Number of keys. */
  get size(): number {
    return this.#keys.size;
  }

  /** Return the key that a client sent; undefined if it is unknown or expired. */
  find(given: string): ApiKey | undefined {
    const [, id, secret] = FORMAT.exec(given) ?? [];
    if (id === undefined || secret === undefined) return undefined;
    const key = this.#keys.get(id);
    return (key ?? DUMMY).matches(secret) && key && Date.now() < key.expiresAt ? key : undefined;
  }

  /** Revoke the keys that have expired, and set a timer for the next one. */
  #revokeExpired(): void {
    clearTimeout(this.#expiry);
    const now = Date.now();
    const next = [...this.#keys.values()].filter((key) => {
      if (key.expiresAt <= now) key.revoke();
      return key.expiresAt > now && Number.isFinite(key.expiresAt);
    });
    if (next.length === 0) return;
    const delay = Math.min(...next.map(({ expiresAt }) => expiresAt)) - now;
    this.#expiry = setTimeout(() => this.#revokeExpired(), Math.min(delay, LONGEST_DELAY_MS)).unref();
  }

  /**
   * Read the file again. Keys that were removed or replaced are revoked; the others get their new limits and
   * expiry. Throws StartupError if the file cannot be used; the keys then stay as they are.
   */
  async reload(): Promise<{ added: number; revoked: number }> {
    const next = new Map<string, ApiKey>();
    for (const record of await readKeyFile(this.path)) {
      const key = new ApiKey(record);
      const known = this.#keys.get(record.id);
      if (known?.equals(key)) Object.assign(known, { limits: key.limits, expiresAt: key.expiresAt });
      next.set(record.id, known?.equals(key) ? known : key);
    }
    const [before, after] = [new Set(this.#keys.values()), new Set(next.values())];
    const [gone, fresh] = [
      [...before].filter((key) => !after.has(key)),
      [...after].filter((key) => !before.has(key)),
    ];
    this.#keys = next;
    for (const key of gone) key.revoke();
    this.#revokeExpired();
    return { added: fresh.length, revoked: gone.length };
  }
}

/** Throw StartupError if `id` is not a valid name of a key. */
export function checkKeyId(id: string): void {
  if (!looksLikeKey(`didi_${id}_${"A".repeat(43)}`))
    throw new StartupError(`--id ${id}: use 1 to 64 letters, digits, dots and dashes, no dash first`, 2);
}
