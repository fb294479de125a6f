/** The result of a device check, and its Markdown. */

import { short, table } from "../report/table.ts";
import type { Environment } from "../report/types.ts";

/** One part of the check for one model in one precision. */
export interface Check {
  model: string;
  precision: string;
  part: string;
  /** What was found, in one line; why there is nothing, if it failed. */
  found: string;
  /** False if a stated tolerance was exceeded or the part failed; absent if nothing is claimed. */
  holds?: boolean;
  /** The figures in `found`. */
  figures?: Record<string, number | boolean>;
  seconds: number;
}

/** Tokens a second of one side for some rows, by step budget; null was not measured. */
export interface Speeds {
  model: string;
  precision: string;
  side: string;
  rows: number;
  tokensPerSecond: (number | null)[];
}

/** A whole run. */
export interface DeviceReport {
  format_version: 1;
  environment: Environment;
  /** Where the graphs ran, and why not on CUDA if `auto` fell back. */
  device: string;
  /** GPUs by nvidia-smi: name, driver, memory. */
  gpus: string[];
  /** Command line. */
  flags: string;
  length: number;
  steps: number[];
  speeds: Speeds[];
  checks: Check[];
  seconds: number;
}

/** Return the report as Markdown. */
export function markdown(report: DeviceReport): string {
  const { environment, device, gpus, flags, length, steps, speeds, checks, seconds } = report;
  const { cpu, cores, memory_bytes, versions } = environment;
  const verdict = ({ holds }: Check) => (holds === undefined ? "" : holds ? "yes" : "NO");
  return [
    `# Device check: ${device}`,
    "",
    `${gpus.join("; ") || "no GPU"}; ${cores} x ${cpu}, ${Math.round(memory_bytes / 1e9)} GB; ` +
      `onnxruntime-node ${versions["onnxruntime-node"]}, Node ${versions.node}; ` +
      `\`npm run device-check${flags && ` -- ${flags}`}\`, ${Math.round(seconds)} s.`,
    "",
    `Tokens a second, ${length} new tokens, by step budget; - was not measured, as it would take too long:`,
    "",
    table(
      ["model", "precision", "side", "rows", ...steps.map((step) => `${step} steps`)],
      speeds.map(({ model, precision, side, rows, tokensPerSecond }) => [
        ...[model, precision, side, rows],
        ...tokensPerSecond.map((value) => (value === null ? "-" : short(value))),
      ]),
    ),
    "",
    table(
      ["model", "precision", "part", "holds", "found"],
      checks.map((check) => [check.model, check.precision, check.part, verdict(check), check.found]),
    ),
    "",
  ].join("\n");
}
