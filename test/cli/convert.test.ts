/** `model convert` runs Python, but no code from a downloaded checkpoint. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { access, chmod, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";
import { type Outcome, SOURCE_ENTRY } from "./support.ts";

const root = scratch("convert");
const checkpoint = join(root, "checkpoint");
const marker = join(root, "was-run");

/** Run `model convert --from .` with the checkpoint as the current directory. */
function convert(python = "python3", env: Record<string, string> = {}): Promise<Outcome> {
  const args = ["model", "convert", "--from", ".", "--out", join(root, "out"), "--python", python];
  return new Promise((settle) => {
    const child = execFile(
      process.execPath,
      [...SOURCE_ENTRY, ...args],
      { cwd: checkpoint, env: { ...process.env, ...env } },
      (_error, stdout, stderr) => settle({ code: child.exitCode, stdout, stderr }),
    );
  });
}

const wasRun = () =>
  access(marker).then(
    () => readFile(marker, "utf8"),
    () => undefined,
  );

test("no module of the checkpoint's folder is executed if it is the current directory", async () => {
  await mkdir(join(checkpoint, "didi"), { recursive: true });
  for (const name of ["model", "discriminator"]) await writeFile(join(checkpoint, `${name}.safetensors`), "");
  const attack = `open(${JSON.stringify(marker)}, "a").write(__name__ + " ")\n`;
  // The project's own package, its imports, and modules of Python itself.
  const modules = [
    "torch",
    "onnx",
    "onnxscript",
    "safetensors",
    "tokenizers",
    "contextlib",
    "argparse",
    "re",
  ];
  for (const name of [...modules, "usercustomize", "sitecustomize", "didi/__init__", "didi/convert"])
    await writeFile(join(checkpoint, `${name}.py`), attack);
  for (const path of [undefined, "", "."]) {
    const { code } = await convert("python3", path === undefined ? {} : { PYTHONPATH: path });
    assert.equal(await wasRun(), undefined, `PYTHONPATH ${path}`);
    // The conversion fails with or without the packages: the files hold no tensors.
    assert.notEqual(code, 0);
  }
});

test("Python before 3.11, which cannot ignore the current directory, is refused", async () => {
  // A stand-in that answers as such a Python does when it is asked for its version, since none may be
  // installed here.
  const old = join(root, "old-python");
  await writeFile(old, `#!/bin/sh\necho 3.10.13\ntouch ${marker}\n`);
  await chmod(old, 0o755);
  const { code, stderr } = await convert(old);
  assert.equal(code, 1);
  assert.match(stderr, /^didi-serve: [^\n]*old-python is Python 3\.10\.13[^\n]*3\.11 or newer[^\n]*\n$/);
});

test("a program that is not Python is refused", async () => {
  const { code, stderr } = await convert("/bin/true");
  assert.equal(code, 1);
  assert.match(stderr, /^didi-serve: \/bin\/true is not Python 3\.11 or newer[^\n]*\n$/);
});

test("after a conversion the next two commands are printed", async () => {
  // A stand-in for Python whose conversion succeeds: the commands do not depend on the model.
  const python = join(root, "python");
  await writeFile(python, '#!/bin/sh\n[ "$1" = -I ] && echo 3.11.0\nexit 0\n');
  await chmod(python, 0o755);
  const { code, stdout } = await convert(python);
  assert.equal(code, 0);
  const out = join(root, "out");
  assert.ok(stdout.includes("no tokenizer.json: using the tokenizer of GPT-2"), stdout);
  assert.ok(
    stdout.endsWith(`next:\n  didi-serve model check ${out}\n  didi-serve serve --model ${out}\n`),
    stdout,
  );
});

test("a relative path of Python is resolved from the user's directory", async () => {
  await writeFile(join(checkpoint, "link"), "#!/bin/sh\necho 3.9.0\n");
  await chmod(join(checkpoint, "link"), 0o755);
  assert.match((await convert("./link")).stderr, /checkpoint.link is Python 3\.9\.0/);
});

test("a tokenizer that the server cannot use is refused before the conversion", async () => {
  const file = join(checkpoint, "tokenizer.json");
  const tokenizer = JSON.parse(await readFile(join(TINY_GUIDED, "tokenizer.json"), "utf8"));
  tokenizer.normalizer = { type: "Replace", pattern: { Regex: "(a+)+$" }, content: "" };
  await writeFile(file, JSON.stringify(tokenizer));
  const { code, stderr } = await convert();
  await rm(file);
  assert.equal(code, 1);
  assert.match(stderr, /^didi-serve: cannot use [^\n]*tokenizer\.json: its normalizer must be[^\n]*\n$/);
});

test("every start of the Python modules leaves the current directory out", async () => {
  const files = await Promise.all(
    ["src", "loadtest", "deploy", "docs", "test"].map(async (folder) =>
      (await readdir(join(PACKAGE_ROOT, folder), { recursive: true, encoding: "utf8" }))
        .filter((name) => name.endsWith(".ts"))
        .map((name) => join(folder, name)),
    ),
  );
  let starts = 0;
  for (const file of files.flat()) {
    const text = await readFile(join(PACKAGE_ROOT, file), "utf8");
    for (const [line] of text.matchAll(/.*\["?.*"-m", (?:"didi\.|module).*/g)) {
      starts++;
      // src/cli/python.ts adds it for its callers.
      assert.ok(
        line.includes('"-P"') || file === join("src", "cli", "commands", "convert.ts"),
        `${file}: ${line}`,
      );
    }
  }
  assert.ok(starts >= 4, `${starts}`);
});
