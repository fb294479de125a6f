/** `didi-serve/client` in another package: its types in Node and in a browser, and its modules. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { before, test } from "node:test";
import { promisify } from "node:util";
import ts from "typescript";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { scratch } from "../support/scratch.ts";

const root = scratch("client");
const installed = join(root, "node_modules", "didi-serve");

/** Return the compiler options of a file of this project, with those that it extends. */
function optionsOf(file: string): ts.CompilerOptions {
  const path = join(PACKAGE_ROOT, file);
  const { config } = ts.readConfigFile(path, ts.sys.readFile);
  const { extends: base, compilerOptions } = config;
  const own = ts.convertCompilerOptionsFromJson(compilerOptions, dirname(path)).options;
  return { ...(base && optionsOf(join(dirname(file), base))), ...own };
}

const faultsOf = (program: ts.Program, more: readonly ts.Diagnostic[] = []) =>
  [...ts.getPreEmitDiagnostics(program), ...more].map(({ messageText }) =>
    ts.flattenDiagnosticMessageText(messageText, "\n"),
  );

before(async () => {
  // As `npm run build` does, the client's files alone.
  const { incremental: _, tsBuildInfoFile: __, ...options } = optionsOf("src/tsconfig.json");
  const program = ts.createProgram([join(PACKAGE_ROOT, "src", "client", "index.ts")], {
    ...options,
    outDir: join(installed, "dist"),
  });
  assert.deepEqual(faultsOf(program, program.emit().diagnostics), []);
  await cp(join(PACKAGE_ROOT, "package.json"), join(installed, "package.json"));
  await writeFile(join(root, "package.json"), '{ "type": "module" }');
  await writeFile(
    join(root, "consumer.ts"),
    `import { DidiClient, DidiError, type StreamEvent } from "didi-serve/client";
     export async function text(client: DidiClient, signal: AbortSignal): Promise<string> {
       const guided = { prompt: "a", steps: "auto", guidance: { mode: "rgas" } } as const;
       for await (const event of client.stream(guided, { signal })) {
         const received: StreamEvent = event;
         if (received.type === "done") return received.samples[0]!.text;
       }
       throw new DidiError("none", { retryable: false });
     }
     // @ts-expect-error no such field
     void new DidiClient("http://a").generate({ promt: "a" });
     // @ts-expect-error no such order
     void new DidiClient("http://a").generate({ order: "left" });`,
  );
});

for (const [where, lib, types] of [
  ["Node", ["lib.es2022.d.ts"], ["node"]],
  ["a browser", ["lib.es2022.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts"], []],
] as const)
  test(`its types are found by the package's name, strict, in ${where}`, () => {
    const program = ts.createProgram([join(root, "consumer.ts")], {
      ...optionsOf("tsconfig.json"),
      lib: [...lib],
      types: [...types],
      typeRoots: [join(PACKAGE_ROOT, "node_modules", "@types")],
      skipLibCheck: where === "Node",
    });
    assert.deepEqual(faultsOf(program), []);
    assert.ok(program.getSourceFiles().some(({ fileName }) => fileName.endsWith("dist/client/index.d.ts")));
  });

test("its modules load by the package's name and import only each other", async () => {
  const script =
    'import * as client from "didi-serve/client"; console.log(Object.keys(client).sort().join())';
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script], {
    cwd: root,
  });
  assert.equal(stdout, "DidiClient,DidiError,RETRY\n");
  const folder = join(installed, "dist", "client");
  const modules = (await readdir(folder)).filter((name) => name.endsWith(".js"));
  assert.ok(modules.length >= 5);
  for (const name of modules)
    for (const [, target] of (await readFile(join(folder, name), "utf8")).matchAll(/from "([^"]+)"/g))
      assert.ok(
        modules.some((other) => target === `./${other}`),
        `${name} imports ${target}`,
      );
});
