/** A client of one server. */

import { type Outgoing, post, readJson, receive } from "./connection.ts";
import { connectionError, problemError } from "./error.ts";
import { RETRY, type RetryPolicy, Tries } from "./retry.ts";
import type { GenerateRequest, GenerateResponse, StreamEvent } from "./types.ts";

/** Settings of a client. */
export interface ClientOptions {
  /** What differs from RETRY. */
  retry?: Partial<RetryPolicy>;
  /**
   * A stream on which nothing comes for so many milliseconds counts as broken. The server sends at least a comment
   * every 15 seconds. Default: 45,000.
   */
  silenceMs?: number;
  /** Of a server that asks for keys. */
  apiKey?: string;
  /** Sent with every request, for a proxy that asks for them. */
  headers?: Record<string, string>;
  /** In place of the global `fetch`. */
  fetch?: typeof fetch;
}

/** Settings of one call. */
export interface CallOptions {
  /** Aborting it ends the call at once, wherever it is, and frees what it took on the server. */
  signal?: AbortSignal | undefined;
}

/** Generates text on a didi-serve. Holds no connection between calls. */
export class DidiClient {
  readonly #url: string;
  readonly #retry: RetryPolicy;
  readonly #silenceMs: number;
  readonly #headers: Record<string, string>;
  readonly #fetch: typeof fetch;

  /** `address` is where the server's routes begin, such as `http://127.0.0.1:8080`. Throws TypeError if it is no URL. */
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
   * Generates and resolves with the answer. Rejects with DidiError when it is refused, or the tries are used up, and
   * with the signal's reason once it is aborted.
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
   * Generates and yields `accepted`, each step exactly once, then `done`. A connection that breaks is made again and
   * goes on after the last event; events then carry another `id`. With `deadline_ms` there is no such going on once an
   * event has come. Throws like `generate`, an `error` event included. Leaving the loop cancels the generation.
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
          // Of sockets alone.
          if (event.type === "authenticated") continue;
          if (event.type === "error") throw problemError(event.error);
          begun = true;
          lastId = id;
          tries.reset();
          yield event;
          if (event.type === "done") return;
        }
        throw connectionError("the stream ended before the generation did", true);
      } catch (error) {
        // Without ids there is no going on, and a new beginning would tell steps twice.
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
