/**
 * `didi-serve/client`: a client for browsers and Node 20 and newer, on `fetch` alone.
 *
 * Imports nothing of the server but the contract's types.
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
