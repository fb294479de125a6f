/** The contract: openapi.yaml as text, its schemas compiled, its types. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Ajv2020, ErrorObject } from "ajv/dist/2020.js";
import { CORE_SCHEMA, load, mergeTag } from "js-yaml";
import { type FieldError, fieldPath, InvalidRequestError } from "../errors.ts";
import { createAjv } from "../json-schema.ts";
import { PACKAGE_ROOT } from "../package-root.ts";
import type { components } from "./api-types.ts";
import { objectFor, unknownField } from "./suggestions.ts";

/** The component schemas as types. */
export type Schemas = components["schemas"];

/** openapi.yaml as served. */
export const CONTRACT_TEXT = readFileSync(join(PACKAGE_ROOT, "openapi.yaml"), "utf8");

/** openapi.yaml, parsed. */
export const CONTRACT: ReturnType<typeof JSON.parse> = load(CONTRACT_TEXT, {
  schema: CORE_SCHEMA.withTags(mergeTag),
});

/** The server's version, the contract's. */
export const VERSION: string = CONTRACT.info.version;

const METHODS = ["get", "post", "put", "patch", "delete"];

/** The routes of the contract: a pattern of the path, and the methods. */
const ROUTES = Object.entries(CONTRACT.paths as Record<string, object>).map(([path, route]) => ({
  path,
  pattern: new RegExp(`^${path.replaceAll(".", "\\.").replace(/\{\w+\}/g, "[^/]+")}/?$`),
  methods: METHODS.filter((method) => method in route).map((method) => method.toUpperCase()),
}));

/** Return the methods of a path, HEAD included where GET is; none for an unknown path. */
export function methodsOf(path: string): string[] {
  const single = path.replace(/\/{2,}/g, "/");
  const methods = ROUTES.find(({ pattern }) => pattern.test(single))?.methods ?? [];
  return methods.includes("GET") ? ["GET", "HEAD", ...methods.filter((method) => method !== "GET")] : methods;
}

/** Return the last part of a path that is no parameter. */
const endOf = (path: string) => path.split("/").findLast((part) => part !== "" && !part.startsWith("{"));

/**
 * Return the routes that a client may have meant by an unknown path, each as in `POST /generate`: those with
 * the same last part, otherwise those with the same first part, otherwise all.
 */
export function routesLike(path: string): string[] {
  const first = path.split("/").find((part) => part !== "");
  const like = [
    ROUTES.filter((route) => endOf(route.path) === endOf(path)),
    ROUTES.filter((route) => route.path.split("/")[1] === first),
    ROUTES,
  ].find((routes) => routes.length > 0)!;
  return like.flatMap((route) => route.methods.map((method) => `${method} ${route.path}`));
}

/** `allErrors` collects an error for each value: a megabyte may hold hundreds of thousands that are wrong. */
function compiler(allErrors: boolean): Ajv2020 {
  const ajv = createAjv({
    allErrors,
    useDefaults: true,
    // An error then holds the value at fault and its schema.
    verbose: true,
    keywords: ["components", "discriminator", "example", "x-neutral"],
  });
  return ajv.addSchema({ $id: "openapi", components: CONTRACT.components });
}

const [firstFault, everyFault] = [compiler(false), compiler(true)];

/** Largest number of values for which all errors are reported; above it, only the first is. */
const MOST_VALUES = 1000;

/** Return whether a value holds at most `most` values, itself included. */
function isSmall(value: unknown, most: number): boolean {
  const found: unknown[] = [value];
  for (const one of found) {
    if (typeof one !== "object" || one === null) continue;
    const inside = Object.values(one);
    if (found.length + inside.length > most) return false;
    found.push(...inside);
  }
  return true;
}

/** Return the property names of a component schema in its order. */
export function fieldsOf(name: keyof Schemas): string[] {
  return Object.keys(CONTRACT.components.schemas[name].properties ?? {});
}

/** A valid value, or the errors of an invalid one. */
export type Checked<T> = { value: T } | { errors: FieldError[] };

/** Validates a value against a component schema and fills in defaults. */
export type Validator<T> = (value: unknown) => Checked<T>;

/** Return a valid value. Throws InvalidRequestError if it is invalid. */
export function valid<T>(checked: Checked<T>): T {
  if ("errors" in checked) throw new InvalidRequestError(checked.errors);
  return checked.value;
}

/** Most characters of a client's names and values that an error quotes. */
const MOST_NAMED = 128;

const short = (text: string) => (text.length > MOST_NAMED ? `${text.slice(0, MOST_NAMED)}…` : text);

/**
 * Return a value for an error; undefined for one that is long or may be private: a list, an object, a text.
 */
function shown(value: unknown, isSetting = false): string | undefined {
  if (value === null || typeof value === "number" || typeof value === "boolean") return `${value}`;
  const isShort = isSetting && JSON.stringify(value).length <= MOST_NAMED / 2;
  return isShort ? JSON.stringify(value) : undefined;
}

/** Return the type of a value in words. */
function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** A demand that a value does not meet, and the value; undefined if an error must not show it. */
interface Fault {
  demand: string;
  is: string | undefined;
}

/** Return the fault of a value. */
function faultOf({ keyword, params, data, message, parentSchema }: ErrorObject): Fault {
  const neutral: string | undefined = parentSchema?.["x-neutral"];
  if (neutral !== undefined)
    return { demand: `must be ${neutral} or absent`, is: shown(data, true) ?? kindOf(data) };
  switch (keyword) {
    case "enum":
      return { demand: `must be one of ${params.allowedValues.join(", ")}`, is: shown(data, true) };
    case "const":
      return { demand: `must be ${JSON.stringify(params.allowedValue)}`, is: shown(data, true) };
    case "type": {
      const types = [params.type].flat().filter((type) => type !== "null");
      const isSetting = !types.some((type) => type === "string" || type === "array" || type === "object");
      const isQuoted = isSetting && typeof data === "string" && data !== "" && Number.isFinite(Number(data));
      const value = shown(data, isSetting) ?? kindOf(data);
      const is = isQuoted ? `${value}: leave out the quotes` : value;
      return { demand: `must be ${types.join(" or ") || "null"}`, is };
    }
    case "maxLength":
    case "minLength":
      return { demand: message!, is: `${Array.from(data as string).length} long` };
    case "maxItems":
    case "minItems":
      return { demand: message!, is: `${(data as unknown[]).length} long` };
    default:
      return { demand: message ?? "is not valid", is: shown(data) };
  }
}

const sentence = (demands: readonly string[], is: string | undefined) =>
  `${[...new Set(demands)].join(" or ")}${is === undefined ? "" : `, and is ${is}`}`;

/** Return true for a field of chat, which says more than what is missing because of it. */
const isOfChat = ({ path }: FieldError) => path === "/messages";

/** Return the error of a field; `fields` are those of the whole value. */
function fieldError(error: ErrorObject, fields: readonly string[]): FieldError {
  const { keyword, instancePath, schemaPath, params, parentSchema } = error;
  const child = (name: string) => fieldPath(instancePath, name);
  if (keyword === "additionalProperties")
    return {
      path: child(short(params.additionalProperty)),
      message: unknownField(short(params.additionalProperty), Object.keys(parentSchema?.properties ?? {})),
    };
  // A schema may accept unknown fields that are null.
  if (schemaPath.endsWith("/unevaluatedProperties/type"))
    return { path: short(instancePath), message: unknownField(short(instancePath.slice(1)), fields) };
  if (keyword === "required") {
    const isModel = params.missingProperty === "model";
    const how = isModel ? ": GET /v1/models names the model that is served" : "";
    return { path: child(params.missingProperty), message: `is required${how}` };
  }
  const object = objectFor(error);
  if (object !== undefined) return { path: instancePath, message: `must be an object: ${object}` };
  const { demand, is } = faultOf(error);
  return { path: instancePath, message: sentence([demand], is) };
}

/**
 * Return the error of a value that fits none of the shapes of a `oneOf`; `missed` holds the errors of each
 * shape. A shape of the value's type tells more than a shape of another type.
 */
function choiceError(
  choice: ErrorObject,
  missed: readonly ErrorObject[],
  fields: readonly string[],
): FieldError {
  const isNeutral = choice.parentSchema?.["x-neutral"] !== undefined;
  const fits = missed.filter(({ keyword }) => keyword !== "type" && keyword !== "const");
  const deeper = missed.filter(({ instancePath }) => instancePath !== choice.instancePath);
  const telling = [fits, deeper, missed].find((errors) => errors.length > 0);
  if (isNeutral || !telling) return fieldError(choice, fields);
  if (telling.some(({ keyword }) => keyword === "additionalProperties"))
    return fieldError(telling[0]!, fields);
  const faults = telling.map(faultOf);
  const demands = faults.map(({ demand }) => demand);
  // Nearly every field may be null, which is no useful advice.
  const real = demands.filter((demand) => demand !== "must be null");
  return {
    path: telling[0]!.instancePath,
    message: sentence(real.length > 0 ? real : demands, faults[0]!.is),
  };
}

/** Most errors that are reported for one value; a megabyte can hold a hundred thousand. */
const MOST_FAULTS = 20;

/** Return the errors of a value; those of the shapes of a `oneOf` are combined into one. */
function fieldErrors(errors: readonly ErrorObject[], known: readonly string[]): FieldError[] {
  const choices = errors.filter(({ keyword }) => keyword === "oneOf").slice(0, MOST_FAULTS);
  const missed = new Map(choices.map((choice): [ErrorObject, ErrorObject[]] => [choice, []]));
  const faults: ErrorObject[] = [];
  let more = 0;
  for (const error of errors) {
    const choice = choices.find(({ schemaPath }) => error.schemaPath.startsWith(`${schemaPath}/`));
    const others = choice && missed.get(choice);
    if (others) {
      if (others.length < MOST_FAULTS) others.push(error);
    } else if (faults.length < MOST_FAULTS) faults.push(error);
    else more++;
  }
  const fields = faults.map((error) => {
    const shapes = missed.get(error);
    return shapes ? choiceError(error, shapes, known) : fieldError(error, known);
  });
  fields.sort((a, b) => Number(isOfChat(b)) - Number(isOfChat(a)));
  return more > 0 ? [...fields, { path: "", message: `has ${more} more faults` }] : fields;
}

const validators = new Map<keyof Schemas, Validator<unknown>>();

/**
 * Return a validator for `components.schemas[name]`. Its work is bounded: it reports all errors of a small
 * value, and only the first error of a large one.
 */
export function validator<Name extends keyof Schemas>(name: Name): Validator<Schemas[Name]> {
  const known = validators.get(name);
  if (known) return known as Validator<Schemas[Name]>;
  const schema = { $ref: `openapi#/components/schemas/${name}` };
  const fields = fieldsOf(name);
  const check = firstFault.compile<Schemas[Name]>(schema);
  // Compiled on the first error, which halves the time of the validators at start-up.
  let checkAll: typeof check | undefined;
  const validate: Validator<Schemas[Name]> = (value) => {
    if (check(value)) return { value };
    if (!isSmall(value, MOST_VALUES)) return { errors: fieldErrors(check.errors!, fields) };
    checkAll ??= everyFault.compile<Schemas[Name]>(schema);
    return { errors: fieldErrors((checkAll(value) ? check : checkAll).errors!, fields) };
  };
  validators.set(name, validate);
  return validate;
}
