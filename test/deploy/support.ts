/** Programs that tests of deploy/ run: skipped where they are missing, unless DIDI_REQUIRE_DEPLOY names them, with spaces between. */

import { execFile } from "node:child_process";
import { findProgram } from "../support/programs.ts";

/** How the programs are installed. */
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

/** The path of a program. Throws if it is not there. */
export function programPath(program: Program): string {
  const path = findProgram(program);
  if (!path) throw new Error(`${program} is missing: ${INSTALL[program]}`);
  return path;
}

/** Why a test that needs these is skipped; false if it is not. */
export function skipWithout(...programs: Program[]): string | false {
  const required = process.env.DIDI_REQUIRE_DEPLOY?.split(" ") ?? [];
  const missing = programs.filter((program) => !required.includes(program) && !findProgram(program));
  if (missing.length === 0) return false;
  return `without ${missing.map((program) => `${program} (${INSTALL[program]})`).join(" and ")}`;
}

/** Runs a program to its end: what it printed. Rejects with that if it fails. */
export function runProgram(path: string, args: string[], cwd: string, input = ""): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(path, args, { cwd }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${path} ${args.join(" ")}: ${stdout}${stderr}`, { cause: error }));
      else resolve(stdout + stderr);
    });
    child.stdin!.end(input);
  });
}
