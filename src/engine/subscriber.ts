/** One accepted request: its id, its steps on the way out, and its answer, which is settled once. */

import { randomUUID } from "node:crypto";
import { CancelledError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import { type Answer, answer, type CacheState } from "./answers/answer.ts";
import type { CachedAnswer } from "./answers/cache.ts";
import type { FairLoop } from "./answers/fair-loop.ts";
import { StepEmitter, type StepListener } from "./answers/step-emitter.ts";
import { type MaskSpan, maskSpans } from "./layout.ts";
import type { PreparedRequest } from "./request.ts";

/** A checked request, with everything that is computed of it once and carried along. */
export interface CheckedRequest extends PreparedRequest {
  /** Cache key; undefined if the seed was drawn, so that the request cannot come again. */
  key: string | undefined;
  /** The cached answer, if there is one. */
  cached: CachedAnswer | undefined;
  /** Token passes charged for rendering the answer and its steps. */
  emitCost: number;
  /** Upper bound of the token passes that the request may take (cost.ts). */
  cost: number;
  /** `performance.now()` from which it has waited for the model; undefined if it has not. */
  since?: number | undefined;
}

/** What the server gets for an accepted request. */
export interface RequestHandle {
  id: string;
  /** The seed in use, given or drawn. */
  seed: number;
  /** The spans of the canvas that are generated. */
  spans: MaskSpan[];
  /** Rejects with CancelledError after `cancel`, with ModelFailure if the model fails. */
  result: Promise<Answer>;
  /** Upper bound of its token passes, a clean-up pass not included. */
  cost: number;
  /** Return the token passes charged so far. */
  spent(): number;
  /** Give the request up; its rows are free before the next step. Can be called at any time. */
  cancel(): void;
}

/** How a request ended. */
export interface Ending {
  outcome: "done" | "cancelled" | "failed";
  result?: Answer;
}

/** A request that waits for its answer. */
export class Subscriber {
  readonly id = randomUUID();
  /** `performance.now()` at acceptance. */
  readonly acceptedAt: number;
  readonly emitter: StepEmitter;
  readonly result: Promise<Answer>;
  /** Settle `result`; only the first call of the two has an effect. */
  readonly resolve: (result: Answer) => void;
  readonly reject: (error: Error) => void;

  /** `onEnd` is called once, when `result` is settled. */
  constructor(
    model: Model,
    readonly request: CheckedRequest,
    readonly cache: CacheState,
    onStep: StepListener | undefined,
    loop: FairLoop,
    onEnd: (ending: Ending) => void,
  ) {
    this.acceptedAt = request.since ?? performance.now();
    this.emitter = new StepEmitter(model, request, onStep, loop);
    let resolve!: (result: Answer) => void;
    let reject!: (error: Error) => void;
    this.result = new Promise((onResult, onError) => {
      resolve = onResult;
      reject = onError;
    });
    // A rejection that no caller awaits must not end the process.
    this.result.catch(() => {});
    let ended = false;
    const end = (ending: Ending, settle: () => void) => {
      if (ended) return;
      ended = true;
      settle();
      onEnd(ending);
    };
    this.resolve = (result) => end({ outcome: "done", result }, () => resolve(result));
    this.reject = (error) => {
      const outcome = error instanceof CancelledError ? "cancelled" : "failed";
      end({ outcome }, () => reject(error));
    };
  }

  /** Answer with steps that are known, after the caller has its handle. Return how to cancel that. */
  answerFrom({ records, outcome }: Pick<CachedAnswer, "records" | "outcome">): () => void {
    const { acceptedAt, resolve, reject } = this;
    const timing = () => ({ queue_ms: 0, compute_ms: 0, total_ms: performance.now() - acceptedAt });
    const next = setImmediate(() => answer(outcome, records, this, timing).then(resolve, reject));
    return () => {
      clearImmediate(next);
      this.stop(new CancelledError("cancelled"));
    };
  }

  /** Stop the steps and reject `result`. */
  stop(error: Error): void {
    this.emitter.stop();
    this.reject(error);
  }

  /** Return the handle of the request. */
  handle(spent: () => number, cancel: () => void): RequestHandle {
    const { params, output, cost } = this.request;
    const spans = maskSpans(output.layout);
    return { id: this.id, seed: params.seed, spans, result: this.result, cost, spent, cancel };
  }
}
