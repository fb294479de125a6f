/** What goes in and out, in the contract's types. */

import type { components } from "../server/api-types.ts";

type Schemas = components["schemas"];

/** All optional: what is absent takes the default that openapi.yaml names. */
type Optional<T> = { [K in keyof T]?: T[K] | undefined };

/** A request; needs one of `prompt`, `prompt_tokens`, `template` and `tokens`. */
export type GenerateRequest = Optional<Schemas["GenerateRequest"]>;

/** The finished generation. */
export type GenerateResponse = Schemas["GenerateResponse"];

/** The generation was taken: its seed, and where its masks lie. */
export type AcceptedEvent = Schemas["AcceptedEvent"];

/** One denoising step of one sample; several merged into one where the reader fell behind. */
export type StepEvent = Schemas["StepEvent"];

/** The finished generation, as an event. */
export type DoneEvent = Schemas["DoneEvent"];

/** What `stream` yields: `accepted`, the steps, `done`. */
export type StreamEvent = AcceptedEvent | StepEvent | DoneEvent;

/** What the server may send: those, or an `error`. */
export type ServerEvent = Schemas["ServerEvent"];

/** What went wrong, and what to do about it (RFC 9457). */
export type Problem = Schemas["Problem"];
