/** Types of requests and answers, from the contract. */

import type { components } from "../server/api-types.ts";

type Schemas = components["schemas"];

/** Make every field optional: absent fields get the defaults of openapi.yaml. */
type Optional<T> = { [K in keyof T]?: T[K] | undefined };

/** A request; needs one of `prompt`, `prompt_tokens`, `template` and `tokens`. */
export type GenerateRequest = Optional<Schemas["GenerateRequest"]>;

/** The answer to a request. */
export type GenerateResponse = Schemas["GenerateResponse"];

/** The request was accepted: its seed, and the spans of its masks. */
export type AcceptedEvent = Schemas["AcceptedEvent"];

/** One denoising step of one sample; steps are merged for a slow reader. */
export type StepEvent = Schemas["StepEvent"];

/** The answer as an event. */
export type DoneEvent = Schemas["DoneEvent"];

/** Events of `stream`: `accepted`, the steps, `done`. */
export type StreamEvent = AcceptedEvent | StepEvent | DoneEvent;

/** Events of the server: those, or an `error`. */
export type ServerEvent = Schemas["ServerEvent"];

/** An error and advice (RFC 9457). */
export type Problem = Schemas["Problem"];
