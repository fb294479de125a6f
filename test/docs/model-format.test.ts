import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import ort from "onnxruntime-node";
import { openModel } from "../../src/model/model.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { TINY_STUDENT } from "../support/engine.ts";

const page = await readFile(join(PACKAGE_ROOT, "docs", "reference", "model-format.md"), "utf8");

test("docs/reference/model-format.md names every field of a manifest", async () => {
  const schema = JSON.parse(await readFile(join(PACKAGE_ROOT, "models", "model.schema.json"), "utf8"));
  for (const name of Object.keys(schema.properties)) assert.ok(page.includes(`\`${name}`), name);
});

/** Rows of a table of the page: name, graphs. */
const rowsOf = (header: string) =>
  Array.from(
    (page.split(header)[1] ?? "")
      .split("\n\n")[0]!
      .matchAll(/^\| `(\w+)` +\| \[[^\]]+\] +\| ([\w, ]+?) +\|/gm),
    ([, name, graphs]) => ({
      name: name!,
      graphs: graphs!.replace("all", "denoise, tilt, score").split(", "),
    }),
  );

test("it has the inputs and outputs of graphs, those of a kept mask and of sigma included", async () => {
  const { graphs } = await openModel(TINY_STUDENT);
  const inputs = rowsOf("| input ");
  const outputs = rowsOf("| output ");
  for (const [graph, path] of Object.entries(graphs.cpu)) {
    const session = await ort.InferenceSession.create(path);
    const listed = (rows: typeof inputs) =>
      rows.filter((row) => row.graphs.includes(graph)).map(({ name }) => name);
    assert.deepEqual(listed(inputs).toSorted(), session.inputNames.toSorted(), `inputs of ${graph}`);
    assert.deepEqual(listed(outputs).toSorted(), session.outputNames.toSorted(), `outputs of ${graph}`);
    await session.release();
  }
});
