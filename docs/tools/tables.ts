/** Write the generated tables of the documents, from the code and the model's figures: `npm run docs`. */

import { EventEmitter } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command, Option } from "commander";
import { script } from "../../loadtest/cli/script.ts";
import { table } from "../../loadtest/report/table.ts";
import type { Parser } from "../../src/cli/parsers.ts";
import { buildProgram } from "../../src/cli/program.ts";
import type { ModelRegistry } from "../../src/engine/models/registry.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { KINDS, type ProblemKind } from "../../src/server/problem.ts";
import { createMetrics } from "../../src/server/telemetry/metrics.ts";
import { decoding, figures, int8, outside, proteins, steps, temperatures } from "./measured.ts";

/** The pages with generated tables. */
export const PAGES = [
  "README.md",
  "docs/reference/flags.md",
  "docs/reference/metrics.md",
  "docs/reference/errors.md",
  "docs/understand/performance.md",
  "docs/understand/sampler.md",
  "models/README.md",
].map((page) => join(PACKAGE_ROOT, page));

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

/** Return a table of flags for each command that has any. */
function flags(command: Command, path = ""): string[] {
  const name = `${path} ${command.name()}`.trim();
  const rows = command.options
    .filter(({ long, hidden }) => long !== "--version" && !hidden)
    .map((option) => [
      code(option.flags),
      option.envVar ? code(option.envVar) : "",
      valuesOf(option),
      defaultOf(option),
      option.description,
    ]);
  const own =
    rows.length > 0
      ? [`## ${code(name)}\n\n${table(["flag", "environment", "values", "default", "meaning"], rows)}`]
      : [];
  return [...own, ...command.commands.flatMap((child) => flags(child, name))];
}

/** The fields of a metric of prom-client that its types leave out. */
interface Metric {
  name: string;
  help: string;
  labelNames?: string[];
}

/** Return a table of the server's own metrics, without those that prom-client collects of the process. */
function metrics(): string {
  // Only names are read, so no model has to run.
  const models = Object.assign(new EventEmitter(), { models: [], engines: [] });
  const all = createMetrics(
    models as unknown as ModelRegistry,
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

/** What a client does about a problem of each kind. */
const REMEDIES: Record<ProblemKind, string> = {
  "invalid-request": "correct the fields that `errors` names",
  "invalid-json": "send JSON, encoded as UTF-8",
  unauthorized: "send a valid key in `Authorization: Bearer KEY`",
  forbidden: "have the operator add the origin or host to `--allow-origin`",
  "not-found": "check the path and the name of the model; `GET /v1/models` lists the names",
  "method-not-allowed": "use a method that the `Allow` header names",
  "request-timeout": "send the whole request within `--request-timeout` seconds",
  "too-large": "send a shorter body, or ask for fewer samples, steps or tokens",
  "unsupported-media-type": "send `Content-Type: application/json`",
  "upgrade-required": "open the route as a WebSocket",
  overloaded: "retry after the seconds in `Retry-After`",
  "limit-reached": "retry after the seconds in `Retry-After`; `limit` names the limit",
  "headers-too-large": "send shorter headers (`--max-header-kb`)",
  cancelled: "nothing: the client cancelled the request",
  internal: "report it with the `request_id`",
  "model-failure": "retry; if it comes again, report it with the `request_id`",
  unavailable: "retry after the seconds in `Retry-After`",
};

/** Return a table of the kinds of problem. */
function errors(): string {
  const rows = Object.entries(KINDS).map(([kind, [status, title]]) => [
    `${status}`,
    code(kind),
    title,
    REMEDIES[kind as ProblemKind],
  ]);
  return table(["status", "kind", "title", "what to do"], rows);
}

/**
 * Return a page with its generated parts, each between `<!-- name: npm run docs -->` and `<!-- end -->`,
 * renewed.
 */
export function renewed(page: string): string {
  const parts: Record<string, () => string> = {
    flags: () => flags(buildProgram()).join("\n\n"),
    metrics,
    ...{ errors, figures, steps, temperatures, outside, decoding, int8, proteins },
  };
  return page.replaceAll(
    /(<!-- (\w+): npm run docs -->\n)[\s\S]*?(<!-- end -->)/g,
    (_, start: string, name: string, end: string) => `${start}\n${parts[name]!()}\n\n${end}`,
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await script("docs", "Write the generated tables of the documents.", [], async () => {
    for (const page of PAGES) writeFileSync(page, renewed(readFileSync(page, "utf8")));
    return 0;
  });
