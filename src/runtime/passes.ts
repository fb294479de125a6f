/** The passes that a runtime process is asked for, in order. */

import type { Pass } from "./pass.ts";

/** Passes that a process has at once: it begins the second without waiting until the server has taken the answer of the first. */
const AT_HAND = 2;

/** The first has its turn; the one behind it may have been sent too. */
export class Passes {
  #all: Pass[] = [];
  #nextId = 1;

  get first(): Pass | undefined {
    return this.#all[0];
  }

  get size(): number {
    return this.#all.length;
  }

  /** Appends a pass. */
  add(pass: Omit<Pass, "id">): void {
    this.#all.push({ ...pass, id: this.#nextId++ });
  }

  /** Puts a pass before the others. */
  insert(pass: Omit<Pass, "id">): void {
    this.#all.unshift({ ...pass, id: this.#nextId++ });
  }

  /** Removes the first. */
  shift(): void {
    this.#all.shift();
  }

  /** Removes all. */
  clear(): Pass[] {
    return this.#all.splice(0);
  }

  /** What the process may have and has not been sent. */
  send(post: (pass: Pass) => void): void {
    // One under which a process died is tried alone, so that what comes after it is not taken for its fault.
    const atHand = (this.first?.attempts ?? 0) > 1 ? 1 : AT_HAND;
    for (const pass of this.#all.slice(0, atHand)) {
      if (!pass.sent) post(pass);
      pass.sent = true;
    }
  }

  /** All are to be sent anew. */
  unsend(): void {
    for (const pass of this.#all) pass.sent = false;
  }
}
