/** Several requests as one: the first failure, or a client that hangs up, ends them all. */

import type { ServerResponse } from "node:http";
import type { Answer } from "../engine/answer.ts";
import type { Ticket } from "../engine/engine.ts";

/** Gives them all up. */
export function cancelAll(tickets: readonly Ticket[]): void {
  for (const ticket of tickets) ticket.cancel();
}

/** A client that hangs up before its answer, or has already, frees its rows. */
export function cancelOnClose(response: ServerResponse, tickets: readonly Ticket[]): void {
  if (response.destroyed) cancelAll(tickets);
  else response.once("close", () => cancelAll(tickets));
}

/** Every answer. */
export async function answersOf(tickets: readonly Ticket[]): Promise<Answer[]> {
  try {
    return await Promise.all(tickets.map(({ result }) => result));
  } catch (error) {
    cancelAll(tickets);
    throw error;
  }
}
