/** `npm run conformance`: as many cases as one likes of test/conformance, and a report. */

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { COMPANIES, ROUND } from "../test/conformance/cases.ts";
import { MODES } from "../test/conformance/modes.ts";
import { conform, type Outcome, type Run, seedOf } from "../test/conformance/run.ts";
import { FIXTURES } from "../test/support.ts";
import { machine } from "./bench/machine.ts";
import { progress, table } from "./report/checks.ts";

const USAGE = `npm run conformance -- [flags]
  --cases <n>    requests compared with themselves alone (default 200)
  --seed <n>     of all cases (default 1)
  --out <file>   where the report goes, as Markdown (default: printed only)
Ctrl-C ends it and reports what there was.`;

/** Different cases that are printed whole. */
const SHOWN = 10;

function readFlags() {
  try {
    const { values } = parseArgs({
      options: {
        cases: { type: "string", default: "200" },
        seed: { type: "string", default: "1" },
        out: { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
    const [cases, seed] = [Number(values.cases), Number(values.seed)];
    if (!Number.isSafeInteger(cases) || cases < 1) throw new Error("--cases must be a whole number from 1");
    if (!Number.isSafeInteger(seed) || seed < 0) throw new Error("--seed must be a whole number from 0");
    return { ...values, cases, seed };
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`);
    process.exit(2);
  }
}

/** Cases of a cell, and how many of them differ if any does. */
function cell(runs: readonly Run[]): string {
  const different = runs.filter(({ same }) => !same).length;
  return different === 0 ? `${runs.length}` : `${runs.length} (**${different} differ**)`;
}

const rowOf = (model: string, mode: string, runs: readonly Run[]) => [
  model,
  mode,
  ...COMPANIES.map((company) => cell(runs.filter((run) => run.company === company))),
  cell(runs),
];

function report({ runs, kills }: Outcome, seed: number, seconds: number): string {
  const models = [...new Set(runs.map(({ model }) => model))];
  const rows = models.flatMap((model) =>
    Object.keys(MODES).flatMap((mode) => {
      const group = runs.filter((run) => run.model === model && run.mode === mode);
      return group.length === 0 ? [] : [rowOf(model, mode, group)];
    }),
  );
  const different = runs.filter(({ same }) => !same).length;
  return `# Conformance

${machine("every converted checkpoint of test/fixtures")}. Seed ${seed}, ${seconds.toFixed(0)} s.

${runs.length} requests were run alone, and again in the company that a column names: ${different} of the second traces differ
from the first. A trace is every position, token, log-probability, entropy, reward and choice of every step. Budgets
are 1, 2, 7, 16 and more than the length. ${kills} workers were killed.

${table(["model", "mode", ...COMPANIES, "all"], [...rows, rowOf("all", "all", runs)])}
`;
}

const flags = readFlags();
if (flags.help) {
  console.log(USAGE);
  process.exit(0);
}
const interrupt = new AbortController();
process.once("SIGINT", () => interrupt.abort());
process.once("SIGTERM", () => interrupt.abort());
const started = performance.now();
const all: Outcome = { runs: [], kills: 0 };
const say = progress();
let done = 0;
const rounds = Math.ceil(flags.cases / FIXTURES.length / ROUND);
for (const [m, folder] of FIXTURES.entries()) {
  const tell = (cases: number) => {
    done += cases;
    say(() => `${done} of ${rounds * ROUND * FIXTURES.length} cases `);
  };
  const numbers = Array(rounds).keys();
  const { runs, kills } = await conform(folder, seedOf(flags.seed, m), numbers, tell, interrupt.signal);
  all.runs.push(...runs);
  all.kills += kills;
}
const different = all.runs.filter(({ same }) => !same);
for (const run of different.slice(0, SHOWN)) console.log(JSON.stringify(run));
const text = report(all, flags.seed, (performance.now() - started) / 1000);
console.log(text);
if (flags.out !== undefined) writeFileSync(flags.out, text);
process.exit(different.length === 0 && all.runs.length > 0 ? 0 : 1);
