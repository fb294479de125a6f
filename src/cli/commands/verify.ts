/** `didi-serve verify`: computes an answer again from its receipt, and says whether it is the same. */

import { readFile } from "node:fs/promises";
import type { Answer } from "../../engine/answers/answer.ts";
import type { Receipt } from "../../engine/answers/receipt.ts";
import { InvalidRequestError, ModelFailure, StartupError } from "../../errors.ts";
import { precisionsOf, readManifest } from "../../model/manifest.ts";
import { existingFolder, identityOf } from "../../model/model.ts";
import { valid, validator } from "../../server/openapi.ts";
import type { ModelConfig } from "../options.ts";
import { printable } from "../printable.ts";
import { ONE_AT_A_TIME, startEngine, warmUp } from "../start-engine.ts";

/** Settings of the command; the model is the receipt's unless given. */
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
    if (!Array.isArray(content.samples))
      throw new InvalidRequestError([{ path: "/samples", message: "must be array" }]);
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

/** Where two answers differ first. */
function difference(before: Answer["samples"], now: Answer["samples"]): string {
  for (const [i, sample] of now.entries()) {
    const told = before[i]?.tokens ?? [];
    const at = sample.tokens.findIndex((token, j) => token !== told[j]);
    if (at >= 0) return `sample ${i}, generated token ${at}: ${told[at]} there, ${sample.tokens[at]} here`;
  }
  return "the tokens are the same, the log-probabilities or rewards are not";
}

/** What a model that lies under models/ may be called (models/model.schema.json): a receipt may name no path. */
const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/**
 * The model to compute with: the one given, or the receipt's. Only its manifest is read here, so that no file is loaded of
 * a model that is not the receipt's. Undefined, and a line about it, if it is another. Throws StartupError if there is none.
 */
async function matchingModel(receipt: Receipt, given: string | undefined): Promise<string | undefined> {
  if (given === undefined && !PLAIN_NAME.test(receipt.model))
    throw new StartupError(
      `the receipt's model is called "${receipt.model}", which is not the name of a model: give the model with --model`,
      2,
    );
  const model = given ?? receipt.model;
  const manifest = await readManifest(await existingFolder(model));
  if (!precisionsOf(manifest.graphs.denoise).includes(receipt.precision)) {
    console.log(
      `differs: the model here has no ${receipt.precision} graphs, and the receipt's was run in them`,
    );
    return undefined;
  }
  const sha256 = identityOf(manifest, receipt.precision);
  if (sha256 === receipt.model_sha256) return model;
  console.log(
    printable(
      `differs: ${receipt.model} is another model here, or the receipt is of an older version (sha256 ${sha256})`,
    ),
  );
  return undefined;
}

/**
 * Compute the answer again. Resolves with 0 if it is the same and 1 if not, and says so. Throws StartupError if it
 * cannot be computed: no such model, or an answer that met its deadline.
 */
export async function verify(path: string, config: VerifyConfig): Promise<number> {
  const { receipt, samples } = await readEvidence(path);
  if (samples?.some(({ finish_reason }) => finish_reason === "deadline"))
    throw new StartupError("the answer met its deadline: which steps were left out depends on the clock");
  const model = await matchingModel(receipt, config.model);
  if (model === undefined) return 1;
  const engine = await startEngine({ ...config, model, precision: receipt.precision }, ONE_AT_A_TIME);
  const { provider } = engine.pool;
  try {
    await warmUp(engine);
    const { deadline_ms: _, ...request } = receipt.request;
    const result = await engine.submit(request).result;
    if (result.receipt.trace_sha256 === receipt.trace_sha256) {
      console.log(`equal: every step of ${result.usage.completion_tokens} tokens`);
      return 0;
    }
    const where = samples ? difference(samples, result.samples) : "give the whole answer to learn where";
    const processor =
      provider === receipt.provider ? "" : ` (computed on ${receipt.provider} there, on ${provider} here)`;
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
