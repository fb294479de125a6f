/** `didi-serve generate`: run one request in the terminal. */

import { logUpdateStderr } from "log-update";
import type { Order } from "../../diffusion/sampler.ts";
import type { StepEvent } from "../../engine/answers/step-emitter.ts";
import { InvalidRequestError, ModelFailure, StartupError } from "../../errors.ts";
import type { ModelConfig } from "../options.ts";
import { ONE_AT_A_TIME, startEngine, warmUp } from "../start-engine.ts";

/** Settings of the command. */
export interface GenerateConfig extends ModelConfig {
  length?: number;
  steps: number;
  seed?: number;
  temperature?: number;
  topK: number;
  topP: number;
  order: Order;
  guidance: "none" | "rgas";
  showSteps: boolean;
  json: boolean;
}

/** Show a step: in place on a terminal, as a line otherwise. */
function showStep(prompt: string, { step, steps, masked, text }: StepEvent): void {
  const head = `step ${step}/${steps}, ${masked} masked`;
  if (process.stderr.isTTY) logUpdateStderr(`${head}\n${prompt}${text}`);
  else console.error(`${head}: ${JSON.stringify(text)}`);
}

/** Run one request and print its text. Throws StartupError; Ctrl-C exits with 130. */
export async function generate(prompt: string, config: GenerateConfig): Promise<void> {
  const engine = await startEngine(config, ONE_AT_A_TIME);
  const interrupt = () => {
    logUpdateStderr.done();
    process.exit(130);
  };
  process.once("SIGINT", interrupt);
  try {
    await warmUp(engine);
    const onStep = config.showSteps ? (event: StepEvent) => showStep(prompt, event) : undefined;
    const { length, steps, seed, temperature, topK: top_k, topP: top_p, order } = config;
    const guidance = { mode: config.guidance };
    const request = { prompt, length, steps, seed, temperature, top_k, top_p, order, guidance };
    const result = await engine.submit(request, onStep).result;
    if (process.stderr.isTTY && config.showSteps) logUpdateStderr.clear();
    console.log(config.json ? JSON.stringify(result, null, 2) : `${prompt}${result.samples[0]!.text}`);
  } catch (error) {
    if (error instanceof InvalidRequestError) throw new StartupError(error.message, 2);
    if (error instanceof ModelFailure) throw new StartupError(error.message);
    throw error;
  } finally {
    process.off("SIGINT", interrupt);
    await engine.pool.close();
  }
}
