/** Checks answers against their requests, and the steps of a stream against its end. */

import type { GenerateRequest, GenerateResponse, StreamEvent } from "../../src/client/index.ts";
import { Fault } from "./fault.ts";

/** A request of one sample with its length, steps and seed. */
export type CheckedRequest = GenerateRequest & { seed: number; length: number; steps: number };

/**
 * Check an answer. Throw Fault "malformed", "wrong length", "wrong steps", "other seed", or "cached" if it
 * came from the result cache.
 */
export function checkAnswer(request: CheckedRequest, answer: Partial<GenerateResponse>): void {
  const { samples, usage, seed, cache } = answer;
  const tokens = samples?.[0]?.tokens;
  if (!usage || samples?.length !== 1 || !tokens?.every(Number.isInteger))
    throw new Fault("malformed", "the answer does not fit the contract");
  if (seed !== request.seed) throw new Fault("other seed", `asked for seed ${request.seed}, got ${seed}`);
  if (tokens.length !== request.length || usage.completion_tokens !== request.length)
    throw new Fault(
      "wrong length",
      `asked for ${request.length} tokens, got ${tokens.length}, counted as ${usage.completion_tokens}`,
    );
  if (usage.steps !== request.steps)
    throw new Fault("wrong steps", `asked for ${request.steps} steps, got ${usage.steps}`);
  if (cache !== "miss") throw new Fault("cached", "the answer came from the cache");
}

/** Checks the events of one stream as they arrive. */
export class StreamChecker {
  readonly #tokens = new Map<number, number>();
  /** Positions that may be revealed; undefined before `accepted`. */
  #masked: number | undefined;
  #positions: number[] = [];
  #step = 0;
  #done = false;
  /** Steps that came merged into the event of a later one. */
  merged = 0;

  constructor(readonly request: CheckedRequest) {}

  /**
   * Take the next event. Throw Fault as checkAnswer does, or "duplicate step", "missing step", "reveals do
   * not add up", "malformed".
   */
  push(event: StreamEvent): void {
    if (this.#done || (event.type === "accepted") !== (this.#masked === undefined))
      throw new Fault("malformed", `${event.type} out of turn`);
    if (event.type === "accepted") {
      this.#positions = event.spans.flatMap(({ start, length }) =>
        Array.from({ length }, (_, i) => start + i),
      );
      this.#masked = this.#positions.length;
    } else if (event.type === "step") this.#takeStep(event);
    else this.#end(event);
  }

  #takeStep({ step, steps, revealed, masked }: Extract<StreamEvent, { type: "step" }>): void {
    const before = this.#masked!;
    if (step <= this.#step) throw new Fault("duplicate step", `step ${step} after step ${this.#step}`);
    if (steps !== this.request.steps || step > steps + 1)
      throw new Fault("wrong steps", `step ${step} of ${steps}`);
    for (const { position, token } of revealed) {
      if (this.#tokens.has(position))
        throw new Fault("reveals do not add up", `position ${position} was revealed twice`);
      this.#tokens.set(position, token);
    }
    // Merged steps carry all their reveals; a lost step leaves a gap in the count.
    if (before - revealed.length !== masked) {
      if (step > this.#step + 1 && before - revealed.length > masked)
        throw new Fault("missing step", `between ${this.#step} and ${step}`);
      throw new Fault(
        "reveals do not add up",
        `${before} were masked, ${revealed.length} revealed, ${masked} left`,
      );
    }
    this.merged += step - this.#step - 1;
    this.#step = step;
    this.#masked = masked;
  }

  #end(done: Extract<StreamEvent, { type: "done" }>): void {
    this.#done = true;
    checkAnswer(this.request, done);
    if (this.#step < done.usage.steps)
      throw new Fault("missing step", `the last was ${this.#step} of ${done.usage.steps}`);
    const revealed = this.#positions.map((position) => this.#tokens.get(position));
    if (this.#masked !== 0 || done.samples[0]!.tokens.some((token, i) => token !== revealed[i]))
      throw new Fault("reveals do not add up", "the steps do not give the tokens of done");
  }

  /** Throw Fault if the stream ended before `done`. */
  close(): void {
    if (!this.#done) throw new Fault("malformed", "the stream ended before done");
  }
}
