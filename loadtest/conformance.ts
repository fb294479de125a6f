/** `npm run conformance`: runs the cases of test/conformance and writes a report. */

import { writeFileSync } from "node:fs";
import { integer } from "../src/cli/parsers.ts";
import { COMPANIES, ROUND } from "../test/conformance/cases.ts";
import { MODES } from "../test/conformance/modes.ts";
import { conform, type Outcome, type Run, SUBJECTS, seedOf } from "../test/conformance/run.ts";
import { Progress } from "./cli/progress.ts";
import { flag, interruption, script } from "./cli/script.ts";
import { table } from "./report/table.ts";
import { machine } from "./servers/machine.ts";

/** Most differing cases that are printed. */
const SHOWN = 10;

/** Return the number of cases, and of those that differ. */
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

${machine("converted checkpoints of random weights")}. Seed ${seed}, ${seconds.toFixed(0)} s.

${runs.length} requests were run alone, and again under the condition of a column:
${different} of the second traces differ from the first.
A trace holds every position, token, log-probability, entropy, reward and choice of every step.
Budgets are 1, 2, 7, 16 and more than the length. ${kills} workers were killed.

${table(["model", "mode", ...COMPANIES, "all"], [...rows, rowOf("all", "all", runs)])}
`;
}

await script<{ cases: number; seed: number; out?: string }>(
  "conformance",
  "Compare requests with the same requests run alone: every trace must be equal.",
  [
    flag("--cases <n>", "requests to compare", integer(1, 1e9), 200),
    flag("--seed <n>", "seed of all cases", integer(0, 2 ** 31), 1),
    flag("--out <file>", "write the report here, as Markdown (default: print it)"),
  ],
  async ({ cases, seed, out }) => {
    const started = performance.now();
    const stop = interruption();
    const all: Outcome = { runs: [], kills: 0 };
    const progress = new Progress();
    let done = 0;
    const rounds = Math.ceil(cases / SUBJECTS.length / ROUND);
    for (const [m, subject] of SUBJECTS.entries()) {
      const onCases = (count: number) => {
        done += count;
        progress.show(() => `${done} of ${rounds * ROUND * SUBJECTS.length} cases `);
      };
      const numbers = Array(rounds).keys();
      const { runs, kills } = await conform(subject, seedOf(seed, m), numbers, onCases, stop);
      all.runs.push(...runs);
      all.kills += kills;
    }
    const different = all.runs.filter(({ same }) => !same);
    for (const run of different.slice(0, SHOWN)) console.log(JSON.stringify(run));
    const text = report(all, seed, (performance.now() - started) / 1000);
    console.log(text);
    if (out !== undefined) writeFileSync(out, text);
    return different.length === 0 && all.runs.length > 0 ? 0 : 1;
  },
);
