/** One connection: send a POST and read the response. */

import { answerError, connectionError, parseBody } from "./error.ts";
import { EventParser } from "./event-parser.ts";
import type { ServerEvent } from "./types.ts";

/** A request to send. */
export interface Outgoing {
  url: string;
  body: string;
  headers: Record<string, string>;
  fetch: typeof fetch;
}

/** An event and the id to resume after it; undefined if it has none. */
export interface Received {
  id: string | undefined;
  event: ServerEvent;
}

/** Send the request. Throws DidiError if the connection fails or the status is not 2xx. */
export async function post({ url, body, headers, fetch }: Outgoing, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body,
      ...(signal && { signal }),
    });
  } catch (cause) {
    throw connectionError(
      `cannot reach ${url}: check that the server is running and that the address is right`,
      true,
      cause,
    );
  }
  if (!response.ok) throw await answerError(response);
  return response;
}

/** Return the parsed body. Throws DidiError if it is incomplete. */
export async function readJson<T>(response: Response): Promise<T> {
  const text = await response.text().catch((cause) => {
    throw connectionError("the connection broke before the answer was complete", true, cause);
  });
  return parseBody(text, response.url);
}

/**
 * Yield the events of one connection until the stream ends. Throws DidiError if the connection breaks or
 * sends nothing for `silenceMs` milliseconds. Ending the iteration or aborting `signal` closes the
 * connection.
 */
export async function* receive(
  outgoing: Outgoing,
  silenceMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Received, void, undefined> {
  const connection = new AbortController();
  const close = () => connection.abort();
  signal?.addEventListener("abort", close, { once: true });
  /** Wait for `arrival`; close the connection after `silenceMs`. */
  const listen = async <T>(arrival: Promise<T>): Promise<T> => {
    const timer = setTimeout(() => connection.abort(new Error(`no data for ${silenceMs} ms`)), silenceMs);
    try {
      return await arrival;
    } finally {
      clearTimeout(timer);
    }
  };
  try {
    const response = await listen(post(outgoing, connection.signal));
    const reader = response.body!.getReader();
    const decoder = new TextDecoder();
    const parser = new EventParser();
    for (;;) {
      const { done, value } = await listen(reader.read()).catch((cause) => {
        throw connectionError("the connection broke in the middle of the stream", true, cause);
      });
      if (done) return;
      for (const { id, data } of parser.push(decoder.decode(value, { stream: true })))
        yield { id, event: parseBody(data, response.url) };
    }
  } finally {
    signal?.removeEventListener("abort", close);
    close();
  }
}
