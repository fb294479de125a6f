/** Completion scripts, run by the shells they are for. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { completionScript, SHELLS, type Shell } from "../../src/cli/completion.ts";
import { buildProgram } from "../../src/cli/program.ts";

const root = await mkdtemp(join(tmpdir(), "didi-completion-"));
after(() => rm(root, { recursive: true }));
const scriptOf = (shell: Shell) => join(root, `script.${shell}`);
before(async () => {
  for (const shell of SHELLS) await writeFile(scriptOf(shell), completionScript(buildProgram(), shell));
  await writeFile(join(root, "an answer.json"), "{}");
});

/** What a shell offers for the last of `words`; run in `root`. */
const OFFERS: Record<Shell, (words: string[]) => string[]> = {
  bash: (words) => [
    "bash",
    "--noprofile",
    "-c",
    `source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _didi_serve; printf '%s\\n' "\${COMPREPLY[@]}"`,
    scriptOf("bash"),
    ...words,
  ],
  // Its completion needs a terminal; what it would call there is stood in for.
  zsh: (words) => [
    "zsh",
    "-f",
    "-c",
    `compdef() { }
     compadd() { shift; print -l -- "$@" }
     _describe() { print -l -- "\${(P@)\${@[-1]}}" }
     _files() { print -l -- * }
     source "$0"; words=("$@"); CURRENT=$#; _didi_serve`,
    scriptOf("zsh"),
    ...words,
  ],
  fish: (words) => [
    "fish",
    "--no-config",
    "-c",
    'source $argv[1]; complete -C "$argv[2]"',
    scriptOf("fish"),
    words.join(" "),
  ],
};

function offers(shell: Shell, ...words: string[]): string[] {
  const [program, ...args] = OFFERS[shell](["didi-serve", ...words]);
  const output = execFileSync(program!, args, { cwd: root, encoding: "utf8" });
  // zsh puts a colon before a description, fish a tab.
  return output
    .trim()
    .split("\n")
    .map((line) => line.split(shell === "zsh" ? ":" : "\t")[0]!);
}

for (const shell of SHELLS) {
  const missing = spawnSync(shell, ["--version"]).error !== undefined && `${shell} is not installed`;
  test(`${shell} completes commands, flags and values`, { skip: missing }, () => {
    const includes = (offered: string[], ...expected: string[]) =>
      assert.ok(
        expected.every((word) => offered.includes(word)),
        `${expected} in ${offered}`,
      );
    includes(offers(shell, ""), "serve", "generate", "verify", "model", "completion");
    includes(offers(shell, "model", ""), "list", "check", "convert");
    assert.ok(!offers(shell, "model", "").includes("serve"));
    includes(offers(shell, "serve", "--"), "--port", "--help", "--log-level");
    assert.ok(!offers(shell, "serve", "--").includes("--seed"));
    includes(offers(shell, "model", "convert", "--"), "--true-sigma");
    assert.deepEqual(offers(shell, "serve", "--device", "").toSorted(), ["auto", "cpu", "cuda"]);
    assert.deepEqual(offers(shell, "model", "convert", "--kind", "").toSorted(), ["didi-instruct", "mdlm"]);
    includes(offers(shell, "completion", ""), "bash", "zsh", "fish");
    // A value that is called like a command is none.
    includes(offers(shell, "serve", "--host", "model", "--"), "--port");
  });

  test(`${shell} completes files where a file is wanted`, { skip: missing }, () => {
    const escaped = shell === "fish" ? ["an\\ answer.json"] : ["an answer.json"];
    for (const words of [
      ["verify", ""],
      ["serve", "--model", ""],
    ])
      assert.ok(
        offers(shell, ...words).some((name) => ["an answer.json", ...escaped].includes(name)),
        `${words}: ${offers(shell, ...words)}`,
      );
    assert.ok(!offers(shell, "serve", "--port", "").some((name) => name.includes("answer")));
  });
}
