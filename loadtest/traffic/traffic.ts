/** Generates requests: shapes mixed by weight, each request with its own seed. */

import { readFileSync } from "node:fs";
import { Ajv } from "ajv";
import { StartupError } from "../../src/errors.ts";
import type { Shape } from "../report/types.ts";
import type { CheckedRequest } from "./checker.ts";

/** One request to be made. */
export interface Ask {
  shape: Shape;
  seed: number;
}

/** Seeds, each used once in a run, so that the cache does not answer. */
export class Seeds {
  #next: number;

  /** `first` is an integer in [0, 2^52]. */
  constructor(readonly first: number) {
    this.#next = first;
  }

  /** Return an unused seed. */
  take(): number {
    return this.#next++;
  }

  get used(): number {
    return this.#next - this.first;
  }
}

/**
 * Yield requests of the shapes in proportion to their weights, without end. The order is not random, so that
 * a few requests have the same mix as many.
 */
export function* traffic(shapes: readonly Shape[], seeds: Seeds): Generator<Ask, never, undefined> {
  const total = shapes.reduce((sum, { weight }) => sum + weight, 0);
  const credit = shapes.map(() => 0);
  for (;;) {
    for (const [i, { weight }] of shapes.entries()) credit[i]! += weight;
    const most = credit.indexOf(Math.max(...credit));
    credit[most]! -= total;
    yield { shape: shapes[most]!, seed: seeds.take() };
  }
}

/** Return the body of POST /generate. */
export function requestOf({ shape, seed }: Ask): CheckedRequest {
  const { prompt = "", length, steps = 16, guidance = "none" } = shape;
  return { prompt, length, steps, seed, guidance: { mode: guidance } };
}

/** Return the default name of a shape. */
export function shapeName({ steps, length, guidance }: Omit<Shape, "name" | "weight">): string {
  return [
    ...(steps === undefined ? [] : [`${steps} steps`]),
    `${length} tokens`,
    ...(guidance === "rgas" ? ["guided"] : []),
  ].join(", ");
}

const MIX_SCHEMA = {
  type: "array",
  minItems: 1,
  maxItems: 64,
  items: {
    type: "object",
    additionalProperties: false,
    required: ["steps", "length"],
    properties: {
      name: { type: "string", minLength: 1, maxLength: 64 },
      weight: { type: "number", exclusiveMinimum: 0, default: 1 },
      steps: { type: "integer", minimum: 1, maximum: 1024 },
      length: { type: "integer", minimum: 1, maximum: 1_048_576 },
      guidance: { enum: ["none", "rgas"], default: "none" },
      prompt: { type: "string", maxLength: 65_536 },
    },
  },
} as const;

/** Read the shapes of a file of mixed traffic. Throw StartupError that names the wrong field. */
export function readMix(path: string): Shape[] {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new StartupError(`--mix ${path}: ${(error as Error).message}`, 2);
  }
  const ajv = new Ajv({ useDefaults: true, allErrors: true });
  if (!ajv.validate(MIX_SCHEMA, value))
    throw new StartupError(`--mix ${path}: ${ajv.errorsText(ajv.errors, { dataVar: "" })}`, 2);
  const shapes = (value as (Omit<Shape, "name"> & { name?: string })[]).map((shape) => ({
    ...shape,
    name: shape.name ?? shapeName(shape),
  }));
  if (new Set(shapes.map(({ name }) => name)).size < shapes.length)
    throw new StartupError(`--mix ${path}: two shapes have the same name: give each its own`, 2);
  return shapes;
}
