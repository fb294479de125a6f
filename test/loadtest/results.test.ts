import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readResults, writeResults } from "../../loadtest/report/results.ts";
import { showKnee } from "../../loadtest/report/table.ts";
import { ticksOf } from "../../loadtest/report/ticks.ts";
import type { Results } from "../../loadtest/report/types.ts";
import { servedCell, shapeOf } from "../../loadtest/sweep/plan.ts";
import { kneeText } from "../../loadtest/sweep/sweep.ts";
import { StartupError } from "../../src/errors.ts";
import { scratch } from "../support/scratch.ts";
import { closed, measured, resultsOf } from "./support.ts";

const root = scratch("results");

const open = (rate: number) => servedCell("post", { kind: "open", rate }, [shapeOf(4, 128)]);
const peer = { ...closed(4), id: "ar", side: "ar", shapes: [{ name: "128 tokens", weight: 1, length: 128 }] };

/** Results with the figures for every picture. */
const whole = (): Results =>
  resultsOf(
    [
      ...[4, 8].flatMap((steps) =>
        [1, 8].map((clients) => measured(closed(steps, clients), [1000 / steps, 1100 / steps])),
      ),
      measured(closed(4, 8, "rgas"), [50, 60]),
      measured(open(5), [40, 41]),
      measured(open(6), [40, 41]),
      measured(peer, [90, 91]),
    ],
    {
      sides: [
        { name: "server", title: "didi-serve", settings: { model: "made" } },
        { name: "ar", title: "a peer", settings: { threads: 2 } },
        { name: "other", title: "another", settings: {}, left_out: "not installed" },
      ],
      knees: [
        {
          ...{ shape: shapeOf(4, 128), transport: "post", reached: true, repeats: [5, 6] },
          requests_per_second: { median: 5.5, lowest: 5, highest: 6 },
        },
      ],
      quality: [
        { sampler: "plain", steps: 4, perplexity: 175 },
        { sampler: "plain", steps: 8, perplexity: 72 },
        { sampler: "rgas", steps: 4, perplexity: 144 },
        { sampler: "autoregressive", perplexity: 25 },
      ],
      warnings: ["one"],
    },
  );

test("a folder of results has all files and can be read again", async () => {
  const folder = join(root, "made");
  const written = await writeResults(folder, whole());
  const pictures = [
    "latency-concurrency.svg",
    "latency-rate.svg",
    "quality-throughput.svg",
    "throughput-steps.svg",
  ];
  assert.deepEqual(
    readdirSync(folder).toSorted(),
    [...pictures, "report.md", "results.csv", "results.json"].toSorted(),
  );
  assert.deepEqual(written.toSorted(), readdirSync(folder).toSorted());
  assert.equal(readResults(folder).cells.length, whole().cells.length);
  assert.equal(readResults(join(folder, "results.json")).name, "made");

  const [head, ...rows] = readFileSync(join(folder, "results.csv"), "utf8").trim().split("\n");
  assert.equal(
    rows.length,
    whole().cells.reduce((sum, { measurements }) => sum + measurements.length, 0),
  );
  const columns = head!.split(",").length;
  // Quoted fields hold commas.
  for (const row of rows) assert.equal(row.replace(/"[^"]*"/g, "").split(",").length, columns);

  const report = readFileSync(join(folder, "report.md"), "utf8");
  for (const said of [
    /## Closed loop/,
    /## Open loop/,
    /5\.50 \(5\.00 to 6\.00\)/,
    /left out: not installed/,
    /## Warnings/,
  ])
    assert.match(report, said);
  // 250 over 90 and 275 over 91 tokens a second.
  assert.match(report, /a peer +\| 4 +\| 128 +\| 8 +\|.*2\.90 \(2\.78 to 3\.02\)/);
});

test("pictures have axes with units, and series that differ without colour", async () => {
  const folder = join(root, "pictures");
  await writeResults(folder, whole());
  const svg = (name: string) => readFileSync(join(folder, name), "utf8");
  assert.match(svg("throughput-steps.svg"), /step budget \(steps\)/);
  assert.match(svg("throughput-steps.svg"), /throughput \(tokens\/s\)/);
  assert.match(svg("latency-rate.svg"), /arrival rate \(requests\/s\)/);
  assert.match(svg("latency-rate.svg"), /latency, p99 \(ms\)/);
  assert.match(svg("latency-concurrency.svg"), /concurrent clients/);
  const quality = svg("quality-throughput.svg");
  for (const said of ["perplexity", "throughput (tokens/s)", "student, guided", "a peer", "4 steps"])
    assert.ok(quality.includes(said), said);
  assert.match(svg("throughput-steps.svg"), /stroke-dasharray/);
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".svg")))
    assert.doesNotMatch(svg(name), /NaN|undefined|Infinity/, name);
});

test("an axis has at least three numbers, and labels stay inside the picture", async () => {
  assert.deepEqual(ticksOf([4, 16], [4, 16]), [4, 5, 7, 10, 15, 16]);
  assert.deepEqual(ticksOf([1000, 1100]), [700, 1000, 1500]);
  assert.deepEqual(ticksOf([4, 8, 16], [4, 8, 16]), [4, 8, 16]);
  assert.equal(ticksOf([1, 1000]), undefined);
  assert.deepEqual(ticksOf([1, 64], [1, 64]), [1, 64]);
  const folder = join(root, "quick");
  await writeResults(folder, whole());
  const svg = readFileSync(join(folder, "quality-throughput.svg"), "utf8");
  const labels = [
    ...svg.matchAll(
      /<text [^>]*text-anchor="(start|end)" transform="translate\(([-\d.]+),([-\d.]+)\)"[^>]*>(\d+ steps)</g,
    ),
  ];
  assert.equal(labels.length, 3);
  for (const [, anchor, x, y, text] of labels) {
    const width = 7 * text!.length;
    const [left, right] = anchor === "end" ? [Number(x) - width, Number(x)] : [Number(x), Number(x) + width];
    assert.ok(left >= 0 && right <= 520 && Number(y) >= 11, `${text} at ${left} to ${right}, ${y}`);
  }
});

test("a knee states if no rate held", () => {
  const none = { median: 0, lowest: 0, highest: 0 };
  assert.equal(showKnee(none), "none of the tried rates held");
  assert.equal(kneeText(none, true), "none of the tried rates held");
  assert.equal(
    showKnee({ median: 5, lowest: 0, highest: 6 }),
    "5.00 (0 to 6.00); 0: none of the tried rates held",
  );
  assert.equal(kneeText({ median: 5, lowest: 5, highest: 6 }, false), "at least 5 requests/s");
});

test("a picture without figures is not drawn, and an old one is removed", async () => {
  const folder = join(root, "few");
  await writeResults(folder, whole());
  await writeResults(folder, resultsOf([measured(closed(4), [1])]));
  assert.deepEqual(readdirSync(folder).toSorted(), ["report.md", "results.csv", "results.json"]);
});

test("a file that is not a result is refused with the reason", () => {
  const file = join(root, "bad.json");
  const { cells, ...rest } = whole();
  const { summary: _, ...cell } = cells[0]!;
  for (const [value, why] of [
    [{ ...whole(), format_version: 2 }, /format_version is not 1/],
    [rest, /cells is not a list/],
    [{ ...rest, cells: [cell] }, /cells\/0 has no summary/],
    [null, /format_version/],
  ] as const) {
    writeFileSync(file, JSON.stringify(value));
    assert.throws(
      () => readResults(file),
      (error) => error instanceof StartupError && why.test(error.message),
    );
  }
  assert.throws(() => readResults(join(root, "none")), StartupError);
});
