/** Requests that are answered as one: the first failure, or a closed connection, cancels all of them. */

import type { ServerResponse } from "node:http";
import type { Answer } from "../../engine/answers/answer.ts";
import type { Ticket } from "../../engine/engine.ts";

/** Cancel all of them. */
export function cancelAll(tickets: readonly Ticket[]): void {
  for (const ticket of tickets) ticket.cancel();
}

/** Cancel the requests when, or if, the client has closed its connection. */
export function cancelOnClose(response: ServerResponse, tickets: readonly Ticket[]): void {
  if (response.destroyed) cancelAll(tickets);
  else response.once("close", () => cancelAll(tickets));
}

/** Wait for all answers; if one fails, cancel the others and throw. */
export async function answersOf(tickets: readonly Ticket[]): Promise<Answer[]> {
  try {
    return await Promise.all(tickets.map(({ result }) => result));
  } catch (error) {
    cancelAll(tickets);
    throw error;
  }
}
