/** `didi-serve verify`: compute an answer again from its receipt and compare. */

import { readFile } from "node:fs/promises";
import type { Answer } from "../../engine/answers/answer.ts";
import type { Receipt } from "../../engine/answers/receipt.ts";
import { InvalidRequestError, invalid, ModelFailure, StartupError } from "../../errors.ts";
import { precisionsOf, readManifest } from "../../model/manifest.ts";
import { existingFolder, identityOf } from "../../model/model.ts";
import { valid, validator } from "../../server/openapi.ts";
import type { ModelConfig } from "../options.ts";
import { printable } from "../output/terminal.ts";
import { ONE_AT_A_TIME, startEngine, submitChosen, warmUp } from "../start-engine.ts";

/** Settings of the command; the default model is the receipt's. */
export interface VerifyConfig extends Pick<ModelConfig, "device" | "threads"> {
  model?: string;
}

/** A receipt, or an answer with one. */
type Evidence = { receipt: Receipt; samples?: Answer["samples"] };

async function readEvidence(path: string): Promise<Evidence> {
  let content: { receipt?: unknown; samples?: unknown };
  try {
    content = JSON.parse(path === "-" ? await readStdin() : await readFile(path, "utf8"));
  } catch (error) {
    throw new StartupError(`cannot read ${path}: ${(error as Error).message}`, 2);
  }
  const whole = content?.receipt !== undefined;
  try {
    const receipt = valid(validator("Receipt")(whole ? content.receipt : content)) as Receipt;
    if (!whole || content.samples === undefined) return { receipt };
    if (!Array.isArray(content.samples)) throw invalid("/samples", "must be array");
    return {
      receipt,
      samples: content.samples.map(
        (sample) => valid(validator("Sample")(sample)) as Answer["samples"][number],
      ),
    };
  } catch (error) {
    if (!(error instanceof InvalidRequestError)) throw error;
    throw new StartupError(`${path} is neither a receipt nor an answer with one: ${error.message}`, 2);
  }
}

async function readStdin(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) text += chunk;
  return text;
}

/** Return the first difference of two answers. */
function difference(before: Answer["samples"], after: Answer["samples"]): string {
  for (const [i, sample] of after.entries()) {
    const filed = before[i]?.tokens ?? [];
    const at = sample.tokens.findIndex((token, j) => token !== filed[j]);
    const [then, now] = [filed[at], sample.tokens[at]];
    if (at >= 0) return `sample ${i}, generated token ${at}: ${then} in the file, ${now} computed now`;
  }
  return "the tokens are equal; the log-probabilities, rewards or scores of options differ";
}

/** Name of a model under models/ (models/model.schema.json): a receipt must not name a path. */
const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/**
 * Return the model to compute with: the given one, or the receipt's. If it is not the model of the receipt,
 * print why and return undefined; only the manifest has been read then. Throws StartupError if there is no
 * such model.
 */
async function matchingModel(receipt: Receipt, given: string | undefined): Promise<string | undefined> {
  if (given === undefined && !PLAIN_NAME.test(receipt.model))
    throw new StartupError(
      `"${receipt.model}" in the receipt is not a valid model name: give the model with --model`,
      2,
    );
  const model = given ?? receipt.model;
  const manifest = await readManifest(await existingFolder(model));
  if (!precisionsOf(manifest.graphs.denoise).includes(receipt.precision)) {
    console.log(
      `differs: the receipt is of ${receipt.precision}, and this model has no ${receipt.precision} graphs`,
    );
    return undefined;
  }
  const sha256 = identityOf(manifest, receipt.precision);
  if (sha256 === receipt.model_sha256) return model;
  console.log(
    printable(
      `differs: the sha256 of ${receipt.model} is ${receipt.model_sha256} in the file, ${sha256} here: ` +
        "this is another model, or another version of it",
    ),
  );
  return undefined;
}

/**
 * Compute an answer again, print the comparison and return the exit code: 0 if it is equal, 1 if it differs.
 * Throws StartupError if it cannot be computed: the model is missing, or the answer was cut short by its
 * deadline.
 */
export async function verify(path: string, config: VerifyConfig): Promise<number> {
  const { receipt, samples } = await readEvidence(path);
  if (samples?.some(({ finish_reason }) => finish_reason === "deadline"))
    throw new StartupError(
      "the answer was cut short by its deadline, which depends on the clock: it cannot be verified",
    );
  const model = await matchingModel(receipt, config.model);
  if (model === undefined) return 1;
  const engine = await startEngine({ ...config, model, precision: receipt.precision }, ONE_AT_A_TIME);
  const { provider } = engine.pool;
  try {
    await warmUp(engine);
    const { deadline_ms: _, ...request } = receipt.request;
    const result = await submitChosen(engine, request);
    const { trace_sha256, choices_sha256 } = result.receipt;
    if (trace_sha256 === receipt.trace_sha256 && choices_sha256 === receipt.choices_sha256) {
      console.log(`equal: every step of ${result.usage.completion_tokens} tokens`);
      return 0;
    }
    const where = samples
      ? difference(samples, result.samples)
      : "verify the whole answer instead of its receipt to see where";
    const processor =
      provider === receipt.provider ? "" : ` (computed on ${receipt.provider} then, on ${provider} now)`;
    console.log(`differs${processor}: ${where}`);
    return 1;
  } catch (error) {
    if (error instanceof InvalidRequestError || error instanceof ModelFailure)
      throw new StartupError(error.message);
    throw error;
  } finally {
    await engine.pool.close();
  }
}
