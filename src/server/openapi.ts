/** The contract: openapi.yaml as text, its schemas compiled, its types. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Ajv2020, ErrorObject } from "ajv/dist/2020.js";
import { CORE_SCHEMA, load, mergeTag } from "js-yaml";
import { type FieldError, InvalidRequestError } from "../errors.ts";
import { createAjv } from "../json-schema.ts";
import { PACKAGE_ROOT } from "../package-root.ts";
import type { components } from "./api-types.ts";

/** The component schemas as types. */
export type Schemas = components["schemas"];

/** openapi.yaml, as it is served. */
export const CONTRACT_TEXT = readFileSync(join(PACKAGE_ROOT, "openapi.yaml"), "utf8");

/** openapi.yaml, parsed. */
export const CONTRACT: ReturnType<typeof JSON.parse> = load(CONTRACT_TEXT, {
  schema: CORE_SCHEMA.withTags(mergeTag),
});

/** The server's version, the contract's. */
export const VERSION: string = CONTRACT.info.version;

const METHODS = ["get", "post", "put", "patch", "delete"];

/** The contract's routes: what their paths look like, and which methods they take. */
const ROUTES = Object.entries(CONTRACT.paths as Record<string, object>).map(([path, route]) => ({
  pattern: new RegExp(`^${path.replaceAll(".", "\\.").replace(/\{\w+\}/g, "[^/]+")}/?$`),
  methods: METHODS.filter((method) => method in route).map((method) => method.toUpperCase()),
}));

/** Methods that the contract has for a path; none if there is no such path. HEAD goes with GET. */
export function methodsOf(path: string): string[] {
  const methods = ROUTES.find(({ pattern }) => pattern.test(path))?.methods ?? [];
  return methods.includes("GET") ? ["GET", "HEAD", ...methods.filter((method) => method !== "GET")] : methods;
}

/** `allErrors` collects an error for each value: a megabyte may hold hundreds of thousands that are wrong. */
function compiler(allErrors: boolean): Ajv2020 {
  const ajv = createAjv({
    allErrors,
    useDefaults: true,
    keywords: ["components", "discriminator", "example"],
  });
  return ajv.addSchema({ $id: "openapi", components: CONTRACT.components });
}

const [firstFault, everyFault] = [compiler(false), compiler(true)];

/** Values that are looked through for every fault; of more, the first fault is told. */
const MOST_VALUES = 1000;

/** Whether a value holds at most `most` values, itself included. */
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

/** Names of the properties of a component schema, in its order. */
export function fieldsOf(name: keyof Schemas): string[] {
  return Object.keys(CONTRACT.components.schemas[name].properties);
}

/** A checked value, or what is wrong with it. */
export type Checked<T> = { value: T } | { errors: FieldError[] };

/** Checks a value against a component schema and fills in defaults. */
export type Validator<T> = (value: unknown) => Checked<T>;

/** The value of a check that passed. Throws InvalidRequestError if it did not. */
export function valid<T>(checked: Checked<T>): T {
  if ("errors" in checked) throw new InvalidRequestError(checked.errors);
  return checked.value;
}

/** Characters of a client's own name that are repeated to it. */
const MOST_NAMED = 128;

const short = (name: string) => (name.length > MOST_NAMED ? `${name.slice(0, MOST_NAMED)}…` : name);

function fieldError(error: ErrorObject): FieldError {
  const { keyword, instancePath, params } = error;
  const child = (name: string) => `${instancePath}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
  switch (keyword) {
    case "additionalProperties":
      return { path: child(short(params.additionalProperty)), message: "is not a field of this request" };
    case "required":
      return { path: child(params.missingProperty), message: "is required" };
    case "enum":
      return { path: instancePath, message: `must be one of ${params.allowedValues.join(", ")}` };
    case "const":
      return { path: instancePath, message: `must be ${JSON.stringify(params.allowedValue)}` };
    default:
      return { path: instancePath, message: error.message ?? "is not valid" };
  }
}

/** Faults of one value that are told. A megabyte can hold a hundred thousand. */
const MOST_FAULTS = 20;

/** What is wrong with a value; where it had a choice of shapes, what each of them misses is one fault. */
function fieldErrors(errors: readonly ErrorObject[]): FieldError[] {
  const choices = errors.filter(({ keyword }) => keyword === "oneOf").slice(0, MOST_FAULTS);
  const missed = new Map(choices.map((choice): [ErrorObject, FieldError[]] => [choice, []]));
  const faults: ErrorObject[] = [];
  let more = 0;
  for (const error of errors) {
    const choice = choices.find(({ schemaPath }) => error.schemaPath.startsWith(`${schemaPath}/`));
    const others = choice && missed.get(choice);
    if (others) {
      if (others.length < MOST_FAULTS) others.push(fieldError(error));
    } else if (faults.length < MOST_FAULTS) faults.push(error);
    else more++;
  }
  const fields = faults.map((error) => {
    const { path, message } = fieldError(error);
    return {
      path,
      message:
        missed
          .get(error)
          ?.map((one) => one.message)
          .join(" or ") || message,
    };
  });
  return more > 0 ? [...fields, { path: "", message: `has ${more} more faults` }] : fields;
}

const validators = new Map<keyof Schemas, Validator<unknown>>();

/**
 * Return a validator for `components.schemas[name]`. Its work is bounded: it stops at the first fault, and looks for all
 * of them only where there are few values to look through.
 */
export function validator<Name extends keyof Schemas>(name: Name): Validator<Schemas[Name]> {
  const known = validators.get(name);
  if (known) return known as Validator<Schemas[Name]>;
  const schema = { $ref: `openapi#/components/schemas/${name}` };
  const check = firstFault.compile<Schemas[Name]>(schema);
  // Compiled when it is needed: half of the time that the validators take at start-up.
  let checkAll: typeof check | undefined;
  const validate: Validator<Schemas[Name]> = (value) => {
    if (check(value)) return { value };
    if (!isSmall(value, MOST_VALUES)) return { errors: fieldErrors(check.errors!) };
    checkAll ??= everyFault.compile<Schemas[Name]>(schema);
    return { errors: fieldErrors((checkAll(value) ? check : checkAll).errors!) };
  };
  validators.set(name, validate);
  return validate;
}
