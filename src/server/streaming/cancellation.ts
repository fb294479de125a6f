/**
 * Cancellation of requests that are answered together: the first failure or a closed connection cancels all.
 */

import type { ServerResponse } from "node:http";
import type { Answer } from "../../engine/answers/answer.ts";
import type { RequestHandle } from "../../engine/subscriber.ts";

/** Cancel all requests. */
export function cancelAll(handles: readonly RequestHandle[]): void {
  for (const handle of handles) handle.cancel();
}

/** Cancel the requests when the client closes its connection, or at once if it has. */
export function cancelOnClose(response: ServerResponse, handles: readonly RequestHandle[]): void {
  if (response.destroyed) cancelAll(handles);
  else response.once("close", () => cancelAll(handles));
}

/** Return a signal that is aborted when the client closes its connection. */
export function closing(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const abort = () => controller.abort();
  if (response.destroyed) abort();
  else response.once("close", abort);
  return controller.signal;
}

/** Wait for all answers; if one fails, cancel the others and throw. */
export async function answersOf(handles: readonly RequestHandle[]): Promise<Answer[]> {
  try {
    return await Promise.all(handles.map(({ result }) => result));
  } catch (error) {
    cancelAll(handles);
    throw error;
  }
}
