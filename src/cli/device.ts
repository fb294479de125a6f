/** The flag `--device`. */

import { InvalidArgumentError } from "commander";
import { StartupError } from "../errors.ts";
import type { Device } from "../runtime/protocol.ts";
import type { Parser } from "./parsers.ts";

/** Value of `--device`: a device, or CUDA on the GPUs with these indexes, such as `cuda:0,1`. */
export type DeviceChoice = Device | `cuda:${string}`;

const LIST = /^cuda:\d{1,3}(,\d{1,3})*$/;
const VALUES = "auto, cpu, cuda, or cuda: and the indexes of GPUs such as cuda:0,1";

/** Parse `--device`. */
export const deviceChoice: Parser<DeviceChoice> = Object.assign(
  (text: string) => {
    const isList = LIST.test(text);
    if (!isList && !["auto", "cpu", "cuda"].includes(text))
      throw new InvalidArgumentError(`It must be ${VALUES}.`);
    const choice = text as DeviceChoice;
    const gpus = gpusOf(choice) ?? [];
    if (new Set(gpus).size < gpus.length) throw new InvalidArgumentError("It names a GPU twice.");
    return choice;
  },
  { values: VALUES },
);

/** Return the indexes of the GPUs that were listed; undefined without a list. */
export function gpusOf(choice: DeviceChoice): number[] | undefined {
  return choice.startsWith("cuda:") ? choice.slice("cuda:".length).split(",").map(Number) : undefined;
}

/** Return the kind of device. */
export const kindOf = (choice: DeviceChoice): Device =>
  choice.startsWith("cuda:") ? "cuda" : (choice as Device);

/** Return the workers to start: at least one for each listed GPU. */
export const workersFor = (choice: DeviceChoice, workers: number): number =>
  Math.max(workers, gpusOf(choice)?.length ?? 1);

/** Throw StartupError if the workers cannot be spread evenly over the listed GPUs. */
export function checkWorkers(choice: DeviceChoice, workers: number): void {
  const gpus = gpusOf(choice)?.length ?? 1;
  if (workers % gpus !== 0)
    throw new StartupError(
      `--workers ${workers} is no multiple of the ${gpus} GPUs of --device ${choice}: leave it out for one ` +
        "worker on each",
      2,
    );
}
