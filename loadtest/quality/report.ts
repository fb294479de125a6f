/** Tables and a picture of what judges say of samples. */

import { basename } from "node:path";
import { draw } from "../report/draw.ts";
import { table } from "../report/table.ts";
import { machine } from "../servers/machine.ts";
import type { Judged } from "./judge.ts";
import type { SampleConfig, Samples, Setting } from "./sample.ts";

/** What a picture shows perplexity against: a figure of each setting, and how its axis is drawn. */
export const AXES = {
  entropy: { title: "entropy (nats)", zero: false },
  passes: { title: "passes a sample, of all networks", log: true },
  time: { title: "ms a sample, 16 requests in flight", log: true },
} as const;

/** What a report needs to know. */
export interface ReportConfig extends SampleConfig {
  judge: string[];
  against: keyof typeof AXES;
}

/** Return two tables: what each judge says and what a sample costs, and shares of words. */
export function report(
  settings: readonly Setting[],
  all: readonly (Samples | undefined)[],
  scores: readonly Judged[],
  config: ReportConfig,
): string {
  const first = settings[0]!.name;
  const perplexities = settings.map(({ name }, i) => {
    const { entropy, judges } = scores[i]!;
    const byJudge = judges.flatMap(({ perplexity, interval: [low, high], difference }) => [
      `${perplexity.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`,
      i > 0 && difference ? `${difference[0].toFixed(4)} (${difference[1].toFixed(4)})` : "",
    ]);
    const cost = [all[i]?.passes.toFixed(1) ?? "", all[i]?.milliseconds.toFixed(0) ?? ""];
    return [name, entropy.toFixed(3), ...byJudge, ...cost];
  });
  const columns = config.judge.flatMap((judge) => [
    `${basename(judge)}: perplexity (95%)`,
    "nats a token (SE)",
  ]);
  const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
  const words = settings.map(({ name }, i) => {
    const { known, pairs, triples, distinct, repeated, unique } = scores[i]!.words;
    return [name, ...[known, pairs, triples, distinct, repeated, unique].map(percent)];
  });
  return `${machine(config.model)}.
${config.samples} samples of ${config.length} tokens, the same seeds in every row.
Nats a token are the mean of differences from "${first}", with their standard error.

${table(["setting", "entropy", ...columns, "passes", "ms a sample"], perplexities)}

Words that the training text has; pairs and triples in a row that held-out stories have; distinct words of a
text; four words in a row that the text had before, and that no other text of the row has.

${table(["setting", "known", "pairs", "triples", "distinct", "repeated", "unique"], words)}
`;
}

/** Return JSON: what was measured of each setting. */
export function figures(
  settings: readonly Setting[],
  all: readonly (Samples | undefined)[],
  scores: readonly Judged[],
  { samples, length, judge }: ReportConfig,
): string {
  const cells = settings.map((setting, i) => ({
    ...{ ...setting, passes: all[i]?.passes, milliseconds: all[i]?.milliseconds },
    ...scores[i],
  }));
  const judges = judge.map((one) => basename(one));
  const short = (_: string, value: unknown) => (typeof value === "number" ? Number(value.toFixed(4)) : value);
  return `${JSON.stringify({ samples, length, judges, cells }, short, 2)}\n`;
}

/** Return what a setting is in its series: "0.9" of "threshold 0.9", "8" of "8 steps, guided". */
export function labelOf(name: string, series: string): string {
  if (name.startsWith(series)) return name.slice(series.length).replace(/^[, ]+/, "");
  return /[\d.]+/.exec(name)?.[0] ?? name;
}

/** Return a picture of perplexity by the first judge; each setting with a `series` is a point. */
export function picture(
  settings: readonly Setting[],
  all: readonly (Samples | undefined)[],
  scores: readonly Judged[],
  { model, judge, samples, against }: ReportConfig,
): Promise<string> {
  const points = settings.flatMap(({ name, series }, i) => {
    const { entropy, judges } = scores[i]!;
    const [low, high] = judges[0]!.interval;
    const x = { entropy, passes: all[i]?.passes, time: all[i]?.milliseconds }[against];
    return series === undefined || x === undefined
      ? []
      : [{ x, y: judges[0]!.perplexity, low, high, series, label: labelOf(name, series) }];
  });
  return draw(
    points.toSorted((a, b) => a.x - b.x),
    {
      title: `${model}: perplexity by ${basename(judge[0]!)} against ${AXES[against].title}`,
      subtitle: `${samples} samples a point; bars: 95% intervals`,
      x: AXES[against],
      y: { title: "perplexity (lower is better)", log: true },
      legend: "sampled by",
    },
  );
}
