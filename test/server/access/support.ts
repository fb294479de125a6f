/** Test key files, and a log that can be searched. */

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Writable } from "node:stream";
import type { KeyLimits } from "../../../src/server/access/key-file.ts";
import { createKey, KeyRing } from "../../../src/server/access/keys.ts";
import { scratch } from "../../support/scratch.ts";

/** A file with a key for each id, with its limits. */
export class TestKeys {
  readonly keys: Record<string, string> = {};
  readonly #lines = new Map<string, string>();

  private constructor(
    readonly path: string,
    readonly ring: KeyRing,
  ) {}

  static async create(ids: Record<string, KeyLimits>): Promise<TestKeys> {
    const path = join(scratch("keys"), "keys.jsonl");
    await writeFile(path, "");
    const made = new TestKeys(path, await KeyRing.open(path));
    for (const [id, limits] of Object.entries(ids)) made.#make(id, limits);
    await made.#write();
    return made;
  }

  /** Remove a key from the file and reload the ring. */
  async remove(id: string): Promise<void> {
    this.#lines.delete(id);
    await this.#write();
  }

  #make(id: string, limits: KeyLimits): void {
    const { key, record } = createKey(id, limits);
    this.keys[id] = key;
    this.#lines.set(id, JSON.stringify(record));
  }

  async #write(): Promise<void> {
    await writeFile(this.path, [...this.#lines.values(), ""].join("\n"));
    await this.ring.reload();
  }
}

/** A logger option, and its output. */
export function searchableLog() {
  const lines: string[] = [];
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  return { logger: { level: "debug", stream }, text: () => lines.join("") };
}
