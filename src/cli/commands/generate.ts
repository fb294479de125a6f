/** `didi-serve generate`: run one request in the terminal. */

import { logUpdateStderr } from "log-update";
import type { Order } from "../../diffusion/step.ts";
import type { Answer } from "../../engine/answers/answer.ts";
import type { StepEvent } from "../../engine/answers/step-emitter.ts";
import type { QualityLevel } from "../../engine/budget.ts";
import type { GenerateRequest } from "../../engine/request.ts";
import { InvalidRequestError, ModelFailure, StartupError } from "../../errors.ts";
import { valid, validator } from "../../server/openapi.ts";
import type { ModelConfig } from "../options.ts";
import { ONE_AT_A_TIME, startEngine, submitChosen, warmUp } from "../start-engine.ts";

/** Settings of the command: the fields of a request, and how to print the answer. */
export interface GenerateConfig extends ModelConfig {
  template?: string;
  length?: number;
  choose?: "likeliest" | "draw";
  steps: number | "auto";
  quality?: QualityLevel;
  seed?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  order?: Order;
  threshold?: number;
  entropyBudget?: number;
  blockLength?: number;
  /** Rate. */
  remask?: number;
  guidance: "none" | "rgas";
  n: number;
  bestOf?: number;
  stop?: string[];
  /** Milliseconds. */
  deadline?: number;
  logprobs: boolean;
  showSteps: boolean;
  json: boolean;
}

const EXAMPLE = 'didi-serve generate "Once upon a time"';

/** A span of a template. */
const SPAN = /\{\{(mask:\d+|choice:[^{}]*)\}\}/;

/** Return the text to generate from. Throws StartupError if there is none, or more than one. */
function textOf(
  words: readonly string[],
  template: string | undefined,
): { prompt: string } | { template: string } {
  const [prompt] = words;
  if (words.length > 1)
    throw new StartupError(`the prompt is ${words.length} arguments: put it in quotes, as in ${EXAMPLE}`, 2);
  if (prompt !== undefined && template !== undefined)
    throw new StartupError("--template has no effect beside a prompt: give one of them", 2);
  if (template !== undefined) return { template };
  if (prompt === undefined) throw new StartupError(`give a prompt, as in ${EXAMPLE}, or --template`, 2);
  return SPAN.test(prompt) ? { template: prompt } : { prompt };
}

/**
 * Return the request of a command line. A prompt with spans, such as `{{mask:4}}`, is a template. Throws
 * StartupError, and InvalidRequestError that names a field of the contract.
 */
export function requestOf(words: readonly string[], config: GenerateConfig): GenerateRequest {
  const { length, steps, seed, temperature, topK: top_k, topP: top_p, order, n, bestOf: best_of } = config;
  const {
    choose,
    quality,
    threshold,
    entropyBudget: entropy_budget,
    blockLength: block_length,
    remask: rate,
  } = config;
  const { stop, deadline: deadline_ms, logprobs, guidance: mode, json } = config;
  if (logprobs && !json)
    throw new StartupError("--logprobs has no effect without --json: give both, or neither", 2);
  const fields = {
    ...textOf(words, config.template),
    ...{
      length,
      choose,
      steps,
      quality,
      seed,
      temperature,
      top_k,
      top_p,
      order,
      n,
      best_of,
      stop,
      deadline_ms,
    },
    ...{ threshold, entropy_budget, block_length, logprobs, guidance: { mode } },
    ...(rate !== undefined && { remask: { mode: "confidence", rate } }),
    // Without --json nothing after the end of the text is shown.
    ...(!json && best_of === undefined && { early_stop: true }),
  };
  const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  return valid(validator("GenerateRequest")(given));
}

/** Show a step: in place on a terminal, as a line otherwise. */
function showStep(prompt: string, n: number, { sample, step, steps, masked, text }: StepEvent): void {
  const head = `${n > 1 ? `sample ${sample}, ` : ""}step ${step}/${steps}, ${masked} masked`;
  if (process.stderr.isTTY) logUpdateStderr(`${head}\n${prompt}${text}`);
  else console.error(`${head}: ${JSON.stringify(text)}`);
}

/** Return the texts of an answer, several ones numbered, best first if they are ranked. */
function textsOf(prompt: string, { samples }: Answer): string {
  if (samples.length === 1) return `${prompt}${samples[0]!.text}`;
  const lines = samples.map(({ text, reward }, i) => {
    const rank = reward === undefined ? "" : `, reward ${reward.toFixed(2)}`;
    return `[${i + 1} of ${samples.length}${rank}] ${prompt}${text}`;
  });
  return lines.join("\n");
}

/** Run one request and print its text. Throws StartupError; Ctrl-C exits with 130. */
export async function generate(words: readonly string[], config: GenerateConfig): Promise<void> {
  const interrupt = () => {
    logUpdateStderr.done();
    process.exit(130);
  };
  let engine: Awaited<ReturnType<typeof startEngine>> | undefined;
  try {
    const request = requestOf(words, config);
    const { prompt = "", best_of, n = 1 } = request;
    engine = await startEngine(config, ONE_AT_A_TIME);
    process.once("SIGINT", interrupt);
    await warmUp(engine);
    const onStep = config.showSteps ? (event: StepEvent) => showStep(prompt, best_of ?? n, event) : undefined;
    const result = await submitChosen(engine, request, onStep);
    if (process.stderr.isTTY && config.showSteps) logUpdateStderr.clear();
    console.log(config.json ? JSON.stringify(result, null, 2) : textsOf(prompt, result));
    const { steps, steps_done } = result.usage;
    if (result.samples.some(({ finish_reason }) => finish_reason === "deadline"))
      console.error(`deadline: ${steps_done} of ${steps} steps ran, then one last pass`);
  } catch (error) {
    if (error instanceof InvalidRequestError) throw new StartupError(error.message, 2);
    if (error instanceof ModelFailure) throw new StartupError(error.message);
    throw error;
  } finally {
    process.off("SIGINT", interrupt);
    await engine?.pool.close();
  }
}
