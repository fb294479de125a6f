/**
 * Programs for the tests of deploy/. A test is skipped without its program, unless DIDI_REQUIRE_DEPLOY lists
 * it.
 */

import { execFile } from "node:child_process";
import { findProgram } from "../support/programs.ts";

/** Commands that install the programs. */
const INSTALL = {
  promtool: "apt-get install prometheus",
  prometheus: "apt-get install prometheus",
  nginx: "apt-get install nginx",
  "systemd-analyze": "apt-get install systemd",
  "redis-server": "apt-get install redis-server",
  "kubernetes-validate": "pip install -r test/deploy/requirements.txt",
  gcc: "apt-get install gcc libc6-dev",
  nm: "apt-get install binutils",
  podman: "apt-get install podman",
  runc: "apt-get install runc",
  mmdebstrap: "apt-get install mmdebstrap",
  kubectl: "see kubernetes.io/docs/tasks/tools",
} as const;

export type Program = keyof typeof INSTALL;

/** Return the path of a program. Throws if it is missing. */
export function programPath(program: Program): string {
  const path = findProgram(program);
  if (!path) throw new Error(`${program} is missing: ${INSTALL[program]}`);
  return path;
}

/** Return the reason to skip a test that needs these programs, or false. */
export function skipWithout(...programs: Program[]): string | false {
  const required = process.env.DIDI_REQUIRE_DEPLOY?.split(" ") ?? [];
  const missing = programs.filter((program) => !required.includes(program) && !findProgram(program));
  if (missing.length === 0) return false;
  return `without ${missing.map((program) => `${program} (${INSTALL[program]})`).join(" and ")}`;
}

/** Run a program and return its output. Rejects with the output if it fails. */
export function runProgram(path: string, args: string[], cwd: string, input = ""): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(path, args, { cwd }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${path} ${args.join(" ")}: ${stdout}${stderr}`, { cause: error }));
      else resolve(stdout + stderr);
    });
    child.stdin!.end(input);
  });
}
