/** `didi-serve verify`: computes an answer again from its receipt, and says whether it is the same. */

import { readFile } from "node:fs/promises";
import type { ModelConfig } from "../config.ts";
import type { Answer } from "../engine/answer.ts";
import type { Receipt } from "../engine/receipt.ts";
import { InvalidRequestError, RuntimeFailure, StartupError } from "../errors.ts";
import { valid, validator } from "../http/openapi.ts";
import { ONE_AT_A_TIME, startEngine, warmUp } from "./start-engine.ts";

/** Settings of the command; the model is the receipt's unless given. */
export interface VerifyConfig extends Pick<ModelConfig, "device" | "threads"> {
  model?: string;
}

/** A receipt, or an answer with one. */
type Evidence = { receipt: Receipt; samples?: Answer["samples"] };

async function readEvidence(path: string): Promise<Evidence> {
  let content: { receipt?: unknown; samples?: Answer["samples"] };
  try {
    content = JSON.parse(path === "-" ? await readStdin() : await readFile(path, "utf8"));
  } catch (error) {
    throw new StartupError(`cannot read ${path}: ${(error as Error).message}`, 2);
  }
  const whole = content?.receipt !== undefined;
  try {
    const receipt = valid(validator("Receipt")(whole ? content.receipt : content)) as Receipt;
    return whole && content.samples ? { receipt, samples: content.samples } : { receipt };
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

/**
 * Computes the answer again. Resolves with 0 if it is the same and 1 if not, and says so. Throws StartupError if it
 * cannot be computed: no such model, or an answer that met its deadline.
 */
export async function verify(path: string, config: VerifyConfig): Promise<number> {
  const { receipt, samples } = await readEvidence(path);
  if (samples?.some(({ finish_reason }) => finish_reason === "deadline"))
    throw new StartupError("the answer met its deadline: which steps were left out depends on the clock");
  const { model, precision } = receipt;
  const engine = await startEngine({ model, precision, ...config }, ONE_AT_A_TIME);
  try {
    const { provider } = engine.runtime;
    if (engine.model.sha256[provider] !== receipt.model_sha256) {
      console.log(
        `differs: ${receipt.model} is another model here (sha256 ${engine.model.sha256[provider]})`,
      );
      return 1;
    }
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
    if (error instanceof InvalidRequestError || error instanceof RuntimeFailure)
      throw new StartupError(error.message);
    throw error;
  } finally {
    await engine.runtime.close();
  }
}
