/** Requests that are answered as one: the first failure, or a closed connection, cancels all of them. */

import type { ServerResponse } from "node:http";
import type { Answer } from "../../engine/answers/answer.ts";
import type { RequestHandle } from "../../engine/engine.ts";

/** Cancel all of them. */
export function cancelAll(handles: readonly RequestHandle[]): void {
  for (const handle of handles) handle.cancel();
}

/** Cancel the requests when, or if, the client has closed its connection. */
export function cancelOnClose(response: ServerResponse, handles: readonly RequestHandle[]): void {
  if (response.destroyed) cancelAll(handles);
  else response.once("close", () => cancelAll(handles));
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
