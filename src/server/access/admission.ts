/** Submits requests to the engine of their model, within the limits of the client's API key. */

import type { FastifyBaseLogger } from "fastify";
import type { StepListener } from "../../engine/answers/step-emitter.ts";
import { choose, scoresOf } from "../../engine/choices.ts";
import type { Engine } from "../../engine/engine.ts";
import type { ModelRegistry } from "../../engine/models/registry.ts";
import type { GenerateRequest, ScoredRow } from "../../engine/request.ts";
import type { RequestHandle } from "../../engine/subscriber.ts";
import { cancelAll } from "../streaming/cancellation.ts";
import type { KeyUsage } from "./key-usage.ts";
import type { ApiKey } from "./keys.ts";

/** A client; a Fastify request is one. */
export interface Caller {
  /** Null if the server requires no key. */
  key: ApiKey | null;
  log: FastifyBaseLogger;
}

/** Gives requests the engine of their model. */
export class Admission {
  constructor(
    readonly models: ModelRegistry,
    readonly usage: KeyUsage,
    /** Whether to log prompts and texts. */
    readonly logPrompts: boolean,
  ) {}

  /**
   * Run `task` with the model of this name, or the first one without a name. The model stays loaded until the
   * promise of the task settles. A request that waits for a load has a place among the concurrent ones of its
   * key. Rejects with NotFoundError, LimitReachedError and the errors of `models.use`.
   *
   * @param signal ends the waiting
   */
  async use<T>(
    caller: Caller,
    name: string | undefined,
    signal: AbortSignal,
    task: (submission: Submission) => Promise<T>,
  ): Promise<T> {
    const model = this.models.find(name);
    const { key } = caller;
    const giveBack = model.isOpen || !key ? undefined : await this.usage.takePlaces(key, 1, 1);
    try {
      return await this.models.use(model, signal, (engine, since) => {
        giveBack?.();
        return task(new Submission(this, engine, caller, since));
      });
    } finally {
      giveBack?.();
    }
  }
}

/** Submits the requests of one client to the engine of one model. */
export class Submission {
  constructor(
    readonly admission: Admission,
    readonly engine: Engine,
    readonly caller: Caller,
    /** `performance.now()` from which the client waited for the model; undefined if it did not. */
    readonly since?: number,
  ) {}

  /**
   * Submit all requests or none. Steps are emitted after this resolves. Rejects with the errors of
   * `engine.check` and `engine.start`, with LimitReachedError, and with InvalidRequestError if the requests
   * alone exceed a limit of the key.
   */
  async submitAll(
    requests: readonly GenerateRequest[],
    listen?: (index: number, ...step: Parameters<StepListener>) => void,
  ): Promise<RequestHandle[]> {
    const { engine } = this;
    const { key } = this.caller;
    const { usage, logPrompts } = this.admission;
    const checked = requests.map((request) => engine.check(request, listen !== undefined, this.since));
    const giveBack = key ? await usage.take(key, checked, engine.retryAfter) : () => {};
    const handles: RequestHandle[] = [];
    try {
      for (const [i, request] of checked.entries())
        handles.push(engine.start(request, listen && ((...step) => listen(i, ...step))));
    } catch (error) {
      cancelAll(handles);
      giveBack();
      throw error;
    }
    if (key) for (const handle of handles) usage.settle(key, handle);
    if (logPrompts) for (const [i, handle] of handles.entries()) this.#log(requests[i]!, handle);
    return handles;
  }

  /** Submit one request, as `submitAll` does, once the choices of its template are made. */
  async submit(asked: GenerateRequest, onStep?: StepListener): Promise<RequestHandle> {
    const { engine } = this;
    const score = async (scored: ScoredRow[]) => {
      const [handle] = await this.submitAll([{ scored, steps: 1 }]);
      return scoresOf(await handle!.result);
    };
    const request = await choose(engine.model, asked, score, (longest) => engine.check(longest));
    const [handle] = await this.submitAll([request], onStep && ((_, ...step) => onStep(...step)));
    return handle!;
  }

  #log(request: GenerateRequest, { id, result }: RequestHandle): void {
    const { log } = this.caller;
    // A canvas for each scored token would be a million numbers.
    const scored = request.scored?.map(({ token }) => token);
    log.info({ id, request: scored ? { ...request, scored } : request }, "prompt");
    result.then(
      ({ samples }) => log.info({ id, texts: samples.map(({ text }) => text) }, "text"),
      () => {},
    );
  }
}
