/** Validators of JSON Schema, draft 2020-12. */

import { Ajv2020, type Options } from "ajv/dist/2020.js";

/**
 * Return an Ajv that does not check its schemas against the meta-schema, whose compilation takes 0.1 s an
 * instance. The schemas are this package's own; test/schemas.test.ts checks them.
 */
export const createAjv = (options: Options = {}): Ajv2020 =>
  new Ajv2020({ ...options, validateSchema: false });
