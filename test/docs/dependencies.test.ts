import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const read = (...path: string[]) => readFile(join(PACKAGE_ROOT, ...path), "utf8");

test("dependencies.md has every package of package.json, and no other, with its licence", async () => {
  const page = await read("docs", "reference", "dependencies.md");
  const { dependencies, optionalDependencies, devDependencies } = JSON.parse(await read("package.json"));
  const [, atRunTime = "", forDevelopment = ""] = page.split(/^## /m);
  for (const [part, packages] of [
    [atRunTime, { ...dependencies, ...optionalDependencies }],
    [forDevelopment, devDependencies],
  ] as const) {
    const rows = Array.from(
      part.matchAll(/^\| `([^`]+)` +\| \d{4} +\| ([^|]+?) +\| [\d.]+ MB +\| \S/gm),
      ([, name, licence]) => ({ name: name!, licence }),
    );
    assert.deepEqual(rows.map(({ name }) => name).toSorted(), Object.keys(packages).toSorted());
    for (const { name, licence } of rows)
      assert.equal(licence, JSON.parse(await read("node_modules", name, "package.json")).license, name);
  }
});

/**
 * Licence of every package that is installed without those for development, by name: what the lock file says.
 */
async function installed(): Promise<Map<string, string>> {
  const { packages } = JSON.parse(await read("package-lock.json")) as {
    packages: Record<string, { dev?: boolean; license?: string }>;
  };
  const found = Object.entries(packages).filter(([path, { dev }]) => path !== "" && !dev);
  return new Map(found.map(([path, { license = "none" }]) => [path.split("node_modules/").at(-1)!, license]));
}

test("dependencies.md has the licence of every installed package, direct or not", async () => {
  const page = await read("docs", "reference", "dependencies.md");
  const rows = Array.from(
    page
      .split("### Licences")[1]!
      .split("\n## ")[0]!
      .matchAll(/^\| (\S.*?) +\| (\d+) +\| (\S.*?) +\|$/gm),
    ([, licence, count, which]) => ({ licence: licence!, count: Number(count), which: which! }),
  );
  const byLicence = new Map<string, string[]>();
  for (const [name, licence] of await installed())
    byLicence.set(licence, [...(byLicence.get(licence) ?? []), name]);
  assert.deepEqual(rows.map(({ licence }) => licence).toSorted(), [...byLicence.keys()].toSorted());
  for (const { licence, count, which } of rows) {
    const names = byLicence.get(licence)!.toSorted();
    assert.equal(count, names.length, licence);
    if (which !== "all others")
      assert.deepEqual(
        Array.from(which.matchAll(/`([^`]+)`/g), ([, name]) => name),
        names,
        licence,
      );
  }
});

test("npm run sbom lists what is installed, each with its version, licence and hash", async () => {
  const { stdout } = await promisify(execFile)("npm", ["run", "--silent", "sbom"], {
    cwd: PACKAGE_ROOT,
    maxBuffer: 1 << 24,
  });
  const { bomFormat, components } = JSON.parse(stdout) as {
    bomFormat: string;
    components: { name: string; version: string; licenses?: object[]; hashes?: object[] }[];
  };
  assert.equal(bomFormat, "CycloneDX");
  const listed = new Set(components.map(({ name }) => name));
  for (const name of (await installed()).keys()) assert.ok(listed.has(name), name);
  for (const { name, version, licenses, hashes } of components) {
    assert.match(version, /^\d+\./, name);
    assert.ok(licenses?.length && hashes?.length, name);
  }
});

test("requirements-convert.txt has the versions of requirements.txt, and what convert imports", async () => {
  const pins = async (file: string) =>
    new Map(
      Array.from((await read("training", file)).matchAll(/^([\w-]+)==(\S+)$/gm), ([, name, version]) => [
        name!,
        version!,
      ]),
    );
  const all = await pins("requirements.txt");
  const converter = await pins("requirements-convert.txt");
  assert.ok(converter.size < all.size);
  for (const [name, version] of converter) assert.equal(version, all.get(name), name);
  const checked = /names = \(([^)]+)\)/.exec(await read("src", "cli", "commands", "convert.ts"))![1]!;
  for (const [, name] of checked.matchAll(/"(\w+)"/g)) assert.ok(converter.has(name!), name);
});
