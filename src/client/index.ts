/**
 * `didi-serve/client`: a client for browsers and Node 20 or newer that needs only `fetch`.
 *
 * Of the server it imports nothing but the types of the API.
 */

export { type CallOptions, type ClientOptions, DidiClient } from "./client.ts";
export { DidiError } from "./error.ts";
export { RETRY, type RetryPolicy } from "./retry.ts";
export type {
  AcceptedEvent,
  DoneEvent,
  GenerateRequest,
  GenerateResponse,
  Problem,
  StepEvent,
  StreamEvent,
} from "./types.ts";
