/** Several requests as one: all are taken or none, and the first failure ends them all. */

import type { Answer } from "../engine/answer.ts";
import type { Engine, Ticket } from "../engine/engine.ts";
import type { StepEvent } from "../engine/narrator.ts";
import type { GenerateRequest } from "../engine/request.ts";

/** Gives them all up. */
export function cancelAll(tickets: readonly Ticket[]): void {
  for (const ticket of tickets) ticket.cancel();
}

/** Submits them. Throws what `submit` throws, and then none runs. */
export function submitAll(
  engine: Engine,
  requests: readonly GenerateRequest[],
  listen?: (index: number, step: StepEvent) => void,
): Ticket[] {
  const tickets: Ticket[] = [];
  try {
    for (const [i, request] of requests.entries())
      tickets.push(engine.submit(request, listen && ((step) => listen(i, step))));
    return tickets;
  } catch (error) {
    cancelAll(tickets);
    throw error;
  }
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
