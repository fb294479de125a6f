/** Schemas of the HTTP routes, taken from the operations of openapi.yaml. */

import buildSerializer from "fast-json-stringify";
import type { FastifyInstance, FastifySchema } from "fastify";
import { InvalidRequestError } from "../errors.ts";
import { CONTRACT, type Schemas, validator } from "./openapi.ts";

type SchemaName = keyof Schemas;

/** A reference to a component schema, as it stands in openapi.yaml. */
interface Reference {
  $ref: string;
}

/** Media types, each with the schema of a body. */
type Content = Record<string, { schema: Partial<Reference> }>;

interface Operation {
  operationId: string;
  requestBody?: { content: Content };
  responses: Record<string, Partial<Reference> & { content?: Content }>;
}

const OPERATIONS: Operation[] = Object.values<Record<string, Operation>>(CONTRACT.paths)
  .flatMap((methods) => Object.values(methods))
  .filter(({ operationId }) => operationId !== undefined);

/** Return the last part of a reference: the name of the component. */
const nameOf = ({ $ref }: Reference) => $ref.split("/").at(-1)!;

/** Return the reference to the schema of a JSON body; undefined for a body of another media type. */
function jsonSchema(content: Content = {}): Reference | undefined {
  const [, media] = Object.entries(content).find(([type]) => /^application\/(\S+\+)?json$/.test(type)) ?? [];
  return media?.schema.$ref === undefined ? undefined : { $ref: media.schema.$ref };
}

/** Return the schema of a route: the JSON body and the JSON answers of the operation with this id. */
export function schemaOf(operationId: string): FastifySchema {
  const operation = OPERATIONS.find((one) => one.operationId === operationId);
  if (!operation) throw new Error(`openapi.yaml has no operation ${operationId}`);
  const body = jsonSchema(operation.requestBody?.content);
  const response: Record<string, Reference> = {};
  for (const [status, answer] of Object.entries(operation.responses)) {
    const { content } =
      answer.$ref === undefined ? answer : CONTRACT.components.responses[nameOf(answer as Reference)];
    const schema = jsonSchema(content);
    if (schema) response[status] = schema;
  }
  return { ...(body && { body }), response };
}

/** Serialisers by schema. Routes share them: compiling one takes 1 to 10 ms. */
const serializers = new Map<string, (value: unknown) => string>();

/** Return the serialiser of a component schema, which writes the fields of the schema and no others. */
export function serializer(name: string): (value: unknown) => string {
  let serialize = serializers.get(name);
  if (!serialize) {
    const openapi = { $id: "openapi", type: "object" as const, components: CONTRACT.components };
    serialize = buildSerializer({ $ref: `openapi#/components/schemas/${name}` }, { schema: { openapi } });
    serializers.set(name, serialize);
  }
  return serialize;
}

/** Make the routes of `app` validate and serialise with the component schemas that `schemaOf` refers to. */
export function useContract(app: FastifyInstance): void {
  app.setValidatorCompiler<Reference>(({ schema }) => {
    const check = validator(nameOf(schema) as SchemaName);
    return (value: unknown) => {
      const checked = check(value);
      return "errors" in checked ? { error: new InvalidRequestError(checked.errors) } : checked;
    };
  });
  app.setSerializerCompiler<Reference>(({ schema }) => serializer(nameOf(schema)));
}
