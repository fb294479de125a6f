/** What the reference reads of openapi.yaml, as types; its references followed. */

import { CONTRACT } from "../openapi.ts";

/** A JSON Schema, as far as the contract uses it. */
export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  oneOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  examples?: unknown[];
  pattern?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
}

/** Bodies by content type. */
export type Content = Record<string, { schema: Schema; example?: unknown }>;

export interface Parameter {
  name: string;
  in: string;
  required?: boolean;
  description?: string;
  schema: Schema;
}

export interface Answer {
  description: string;
  headers?: Record<string, { description: string; schema: Schema }>;
  content?: Content;
}

export interface Operation {
  method: string;
  path: string;
  operationId: string;
  summary: string;
  description?: string;
  parameters: Parameter[];
  body: Content;
  answers: [status: string, answer: Answer][];
  /** Whether it asks for a key, where the server has keys. */
  guarded: boolean;
}

interface RawOperation {
  operationId: string;
  summary: string;
  description?: string;
  parameters?: Parameter[];
  requestBody?: { content: Content };
  responses: Record<string, Answer & { $ref?: string }>;
  /** Empty: asks for no key. */
  security?: object[];
}

interface Contract {
  info: { title: string; version: string; summary: string; description: string };
  paths: Record<string, { parameters?: Parameter[] } & Record<string, RawOperation>>;
  components: { schemas: Record<string, Schema>; responses: Record<string, Answer> };
}

const contract = CONTRACT as Contract;

export const { info } = contract;

/** The component schemas, by name. */
export const SCHEMAS = contract.components.schemas;

/** The last part of a reference: the component's name. */
export const nameOf = (reference: string): string => reference.split("/").at(-1)!;

/** Every operation, in the contract's order. */
export const OPERATIONS: Operation[] = Object.entries(contract.paths).flatMap(([path, item]) => {
  const { parameters: shared = [], ...methods } = item;
  return Object.entries(methods).map(
    ([method, { parameters = [], requestBody, responses, security, ...head }]): Operation => ({
      ...head,
      guarded: security?.length !== 0,
      method: method.toUpperCase(),
      path,
      parameters: [...shared, ...parameters],
      body: requestBody?.content ?? {},
      answers: Object.entries(responses).map(([status, answer]) => [
        status,
        answer.$ref ? contract.components.responses[nameOf(answer.$ref)]! : answer,
      ]),
    }),
  );
});
