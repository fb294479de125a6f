/** Writes the tables of docs/operating.md from the code: `npm run docs`. */

import { EventEmitter } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command, Option } from "commander";
import { script } from "../loadtest/cli/script.ts";
import { table } from "../loadtest/report/table.ts";
import type { Parser } from "../src/cli/options.ts";
import { buildProgram } from "../src/cli/program.ts";
import type { Engine } from "../src/engine/engine.ts";
import { PACKAGE_ROOT } from "../src/package-root.ts";
import { createMetrics } from "../src/server/telemetry/metrics.ts";

const PAGE = join(PACKAGE_ROOT, "docs", "operating.md");

const code = (text: string) => `\`${text.replaceAll("|", "\\|")}\``;

function valuesOf({ argChoices, parseArg, required, optional }: Option): string {
  if (argChoices) return argChoices.map(code).join(", ");
  if (!required && !optional) return "a switch";
  return (parseArg as Partial<Parser<unknown>> | undefined)?.values ?? "text";
}

const defaultOf = ({ defaultValue, mandatory }: Option) =>
  mandatory
    ? "required"
    : defaultValue === undefined || defaultValue === false
      ? ""
      : code([defaultValue].flat().join(" "));

/** A table of flags for each command that has any. */
function flags(command: Command, path = ""): string[] {
  const name = `${path} ${command.name()}`.trim();
  const rows = command.options
    .filter(({ long }) => long !== "--version")
    .map((option) => [
      code(option.flags),
      option.envVar ? code(option.envVar) : "",
      valuesOf(option),
      defaultOf(option),
      option.description,
    ]);
  const own =
    rows.length > 0
      ? [`### ${code(name)}\n\n${table(["flag", "environment", "values", "default", "meaning"], rows)}`]
      : [];
  return [...own, ...command.commands.flatMap((child) => flags(child, name))];
}

/** What prom-client's metrics hold beside what its types say. */
interface Metric {
  name: string;
  help: string;
  labelNames?: string[];
}

/** A table of our own metrics; those of the process are prom-client's. */
function metrics(): string {
  const engine = Object.assign(new EventEmitter(), { runtime: new EventEmitter() });
  // Nothing is read but names: no engine has to run.
  const all = createMetrics(
    engine as unknown as Engine,
    () => true,
  ).registry.getMetricsAsArray() as unknown as Metric[];
  const own = all.filter(({ name }) => name.startsWith("didi_"));
  const rows = own.map((metric) => {
    const labels = (metric as { labelNames?: string[] }).labelNames ?? [];
    return [
      code(metric.name),
      metric.constructor.name.toLowerCase(),
      labels.map(code).join(", "),
      metric.help,
    ];
  });
  return table(["metric", "type", "labels", "meaning"], rows);
}

/** A page with its generated parts made anew: what stands between `<!-- name -->` and `<!-- end -->`. */
export function renewed(page: string): string {
  const parts: Record<string, string> = { flags: flags(buildProgram()).join("\n\n"), metrics: metrics() };
  return page.replaceAll(
    /(<!-- (\w+): npm run docs -->\n)[\s\S]*?(<!-- end -->)/g,
    (_, start: string, name: string, end: string) => `${start}\n${parts[name]}\n\n${end}`,
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await script("docs", "Write the tables of docs/operating.md from the code.", [], async () => {
    writeFileSync(PAGE, renewed(readFileSync(PAGE, "utf8")));
    return 0;
  });
