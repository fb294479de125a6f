/** The client of one server. */

import { type Outgoing, post, readJson, receive } from "./connection.ts";
import { connectionError, problemError } from "./error.ts";
import { RETRY, type RetryPolicy, Tries } from "./retry.ts";
import type { GenerateRequest, GenerateResponse, StreamEvent } from "./types.ts";

/** Settings of a client. */
export interface ClientOptions {
  /** Overrides of the defaults in `RETRY`. */
  retry?: Partial<RetryPolicy>;
  /**
   * Milliseconds without data after which a stream counts as broken. The server sends at least a comment
   * every 15 seconds. Default: 45,000.
   */
  silenceMs?: number;
  /** API key, for a server that requires one. */
  apiKey?: string;
  /** Headers to send with every request, such as those a proxy requires. */
  headers?: Record<string, string>;
  /** Replacement for the global `fetch`. */
  fetch?: typeof fetch;
}

/** Settings of one call. */
export interface CallOptions {
  /** Aborting it ends the call at once and frees its rows on the server. */
  signal?: AbortSignal | undefined;
}

/** Generates text on a didi-serve. Holds no connection between calls. */
export class DidiClient {
  readonly #url: string;
  readonly #retry: RetryPolicy;
  readonly #silenceMs: number;
  readonly #headers: Record<string, string>;
  readonly #fetch: typeof fetch;

  /**
   * `address` is the base URL of the server, such as `http://127.0.0.1:8080`. Throws TypeError if it is not a
   * URL.
   */
  constructor(address: string | URL, options: ClientOptions = {}) {
    this.#url = new URL(`${String(address).replace(/\/+$/, "")}/generate`).href;
    this.#retry = { ...RETRY, ...options.retry };
    this.#silenceMs = options.silenceMs ?? 45_000;
    const { apiKey } = options;
    this.#headers = {
      ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
      ...options.headers,
    };
    // A browser's fetch must be called as a function of its window.
    this.#fetch = options.fetch ?? ((...request) => fetch(...request));
  }

  /**
   * Generate text and return the answer. Rejects with DidiError if the server refuses the request or every
   * retry fails, and with the signal's reason if it is aborted.
   */
  async generate(request: GenerateRequest, { signal }: CallOptions = {}): Promise<GenerateResponse> {
    const outgoing = this.#outgoing(request, { accept: "application/json" });
    const tries = new Tries(this.#retry, signal);
    for (;;) {
      signal?.throwIfAborted();
      try {
        return await readJson<GenerateResponse>(await post(outgoing, signal));
      } catch (error) {
        await tries.again(error);
      }
    }
  }

  /**
   * Generate text and yield the events `accepted`, each step exactly once, and `done`. A broken connection is
   * reopened and resumes after the last event; the events then carry a new `id`. A request with `deadline_ms`
   * cannot be resumed once an event has arrived. Throws as `generate` does, also for an `error` event.
   * Leaving the loop cancels the request.
   */
  async *stream(
    request: GenerateRequest,
    { signal }: CallOptions = {},
  ): AsyncGenerator<StreamEvent, void, undefined> {
    const tries = new Tries(this.#retry, signal);
    let begun = false;
    let lastId: string | undefined;
    for (;;) {
      signal?.throwIfAborted();
      const headers = { accept: "text/event-stream", ...(lastId && { "last-event-id": lastId }) };
      try {
        for await (const { id, event } of receive(
          this.#outgoing(request, headers),
          this.#silenceMs,
          signal,
        )) {
          signal?.throwIfAborted();
          // Sent on WebSockets only.
          if (event.type === "authenticated") continue;
          if (event.type === "error") throw problemError(event.error);
          begun = true;
          lastId = id;
          tries.reset();
          yield event;
          if (event.type === "done") return;
        }
        throw connectionError("the stream ended before the `done` event", true);
      } catch (error) {
        // Without an event id the stream cannot resume, and a fresh start would repeat steps.
        await tries.again(error, !begun || lastId !== undefined);
      }
    }
  }

  #outgoing(request: GenerateRequest, headers: Record<string, string>): Outgoing {
    return {
      url: this.#url,
      body: JSON.stringify(request),
      headers: { ...this.#headers, ...headers },
      fetch: this.#fetch,
    };
  }
}
