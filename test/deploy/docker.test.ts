/** The Dockerfiles install from the lock file, by hash, and run no script of a package. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const read = (...path: string[]) => readFileSync(join(PACKAGE_ROOT, ...path), "utf8");

/** Every Dockerfile of the project, relative to its root. */
const DOCKERFILES = [
  ...readdirSync(PACKAGE_ROOT),
  ...readdirSync(join(PACKAGE_ROOT, "deploy"), { recursive: true, encoding: "utf8" }).map((name) =>
    join("deploy", name),
  ),
].filter((name) => /(^|[/\\])Dockerfile(\.\w+)?$|\.Dockerfile$/.test(name));

interface Instruction {
  name: string;
  rest: string;
}

/** Return the instructions of a Dockerfile with continued lines joined and without comments. */
function instructionsOf(text: string): Instruction[] {
  return text
    .replace(/^\s*#.*\n/gm, "")
    .replace(/\\\n/g, " ")
    .split("\n")
    .flatMap((line) => {
      const [, name, rest] = line.match(/^\s*([A-Za-z]+)\s+(.*\S)/) ?? [];
      return name === undefined ? [] : [{ name: name.toUpperCase(), rest: rest! }];
    });
}

/** Return the commands of a RUN instruction. */
const commandsOf = (rest: string) => rest.split(/&&|\|\||[;|]/).map((command) => command.trim());

/** Return the files that a COPY or ADD copies from the build context. */
function sourcesOf({ name, rest }: Instruction): string[] {
  if ((name !== "COPY" && name !== "ADD") || /--from=/.test(rest)) return [];
  return rest
    .split(/\s+/)
    .filter((word) => !word.startsWith("--"))
    .slice(0, -1);
}

/** Return what a Dockerfile does against SECURITY.md. */
function faultsOf(text: string): string[] {
  const faults: string[] = [];
  let copied = new Set<string>();
  for (const instruction of instructionsOf(text)) {
    const { name, rest } = instruction;
    if (name === "FROM") copied = new Set();
    for (const source of sourcesOf(instruction)) copied.add(source);
    if (name === "ADD" && /https?:/.test(rest) && !rest.includes("--checksum=")) faults.push(rest);
    if (name !== "RUN") continue;
    for (const command of commandsOf(rest)) {
      const npm = command.match(/\bnpm\s+(?:-\S+\s+)*([a-z-]+)/)?.[1];
      const installs = npm !== undefined && !["run", "prune", "cache", "config"].includes(npm);
      if (/\bnpx\s|\b(yarn|pnpm)\s/.test(command) || (installs && npm !== "ci"))
        faults.push(`${command}: installs outside the lock file`);
      if (npm !== undefined && npm !== "run" && !(copied.has(".npmrc") && copied.has("package-lock.json")))
        faults.push(`${command}: before .npmrc and package-lock.json are copied`);
      if (/ignore-scripts[= ]false/.test(command)) faults.push(`${command}: runs install scripts`);
      if (/\bpip3?\s+(install|download)\b/.test(command) && !command.includes("--require-hashes"))
        faults.push(`${command}: installs without hashes`);
    }
  }
  return faults;
}

test("there are Dockerfiles for a CPU and for CUDA", () => {
  assert.ok(DOCKERFILES.some((name) => !name.includes("cuda")));
  assert.ok(DOCKERFILES.some((name) => name.includes("cuda")));
});

for (const name of DOCKERFILES) {
  test(`${name} installs only from the lock file and runs no install script`, () => {
    assert.deepEqual(faultsOf(read(name)), []);
  });

  test(`${name} copies nothing that .dockerignore excludes`, () => {
    const kept = read(".dockerignore")
      .split("\n")
      .filter((line) => line.startsWith("!"))
      .map((line) => line.slice(1));
    for (const source of instructionsOf(read(name)).flatMap(sourcesOf))
      assert.ok(
        kept.some((one) => source === one || source.startsWith(`${one}/`)),
        source,
      );
  });
}

test(".npmrc turns install scripts off", () => assert.match(read(".npmrc"), /^ignore-scripts=true$/m));

test("the packages for --redis and traces are in the lock file", () => {
  const { packages } = JSON.parse(read("package-lock.json"));
  for (const name of ["ioredis", "@opentelemetry/api"]) {
    const { integrity, dev } = packages[`node_modules/${name}`];
    assert.match(integrity, /^sha512-/);
    // The image has no development packages.
    assert.equal(dev, undefined, name);
  }
});

test("faults of a Dockerfile are detected", () => {
  const head = "FROM a AS b\nCOPY package.json package-lock.json .npmrc ./\n";
  assert.deepEqual(faultsOf(`${head}RUN npm ci && npm prune --omit=dev`), []);
  for (const fault of [
    "RUN npm ci && npm install --no-save ioredis@6",
    "RUN npm i x",
    "RUN npm ci --ignore-scripts=false",
    "RUN npm ci && \\\n  npx x",
    "RUN pip install x",
    "ADD https://example.org/x /x",
    "FROM c\nRUN npm ci",
  ])
    assert.equal(faultsOf(head + fault).length, 1, fault);
  assert.equal(faultsOf("FROM a\nCOPY package.json package-lock.json ./\nRUN npm ci").length, 1);
});
