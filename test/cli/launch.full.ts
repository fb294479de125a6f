/** `didi-serve` in a checkout: what it builds, what it says, and whose paths it takes. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, symlink, utimes } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { findProgram } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";

const run = promisify(execFile);
const root = scratch("launch");
const checkout = join(root, "checkout");
const launcher = join(checkout, "src", "didi-serve.js");
const JSON_BODY = { "content-type": "application/json" };

before(async () => {
  await mkdir(join(checkout, "models"), { recursive: true });
  for (const name of ["src", "package.json", "tsconfig.json", "openapi.yaml", "web", ".npmrc"])
    await cp(join(PACKAGE_ROOT, name), join(checkout, name), { recursive: true });
  await cp(join(PACKAGE_ROOT, "models", "model.schema.json"), join(checkout, "models", "model.schema.json"));
  await cp(TINY_GUIDED, join(checkout, "models", "tiny"), { recursive: true });
  await symlink(join(PACKAGE_ROOT, "node_modules"), join(checkout, "node_modules"));
});

test("the first call builds, the next does not, and one after a change does", async () => {
  const call = () => run(process.execPath, [launcher, "--version"]);
  const first = await call();
  assert.match(first.stdout, /^\d+\.\d+\.\d+\n$/);
  assert.equal(first.stderr, "didi-serve: building …\n");
  assert.equal((await call()).stderr, "");
  const later = new Date(Date.now() + 2000);
  await utimes(join(checkout, "src", "errors.ts"), later, later);
  assert.equal((await call()).stderr, "didi-serve: building …\n");
});

test("npm run didi-serve takes paths relative to the caller's folder", async () => {
  const caller = join(root, "caller");
  await cp(TINY_GUIDED, join(caller, "mine"), { recursive: true });
  const args = ["--prefix", checkout, "run", "--silent", "didi-serve", "--", "model", "check", "./mine"];
  const { stdout } = await run("npm", [...args, "--device", "cpu", "--threads", "1"], { cwd: caller });
  assert.match(stdout, new RegExp(`^ok {2}manifest .*${join("caller", "mine", "model.json")}`));
});

test("on a terminal the log is for people: a line a request, none for probes, and a last one", {
  skip: !findProgram("script") && "there is no script(1) here",
}, async () => {
  const args = [process.execPath, launcher, "serve", "--port", "0", "--device", "cpu", "--model", "tiny"];
  // script(1) runs the server on a terminal of its own.
  const child = spawn("script", ["-qfec", `exec ${args.join(" ")}`, "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, DIDI_LOG_FORMAT: "auto" },
  });
  after(() => child.kill("SIGKILL"));
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (chunk) => {
    said += chunk;
  });
  const sees = async (pattern: RegExp) => {
    for (;;) {
      const match = pattern.exec(said);
      if (match) return match;
      if (child.exitCode !== null) throw new Error(`it ended: ${said}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const [, origin] = await sees(/ready at (\S+)/);
  await fetch(`${origin}/readyz`);
  const body = JSON.stringify({ prompt: "", length: 8, steps: 4, seed: 1 });
  await fetch(`${origin}/generate`, { method: "POST", headers: JSON_BODY, body });
  await sees(/^\d\d:\d\d:\d\d POST \/generate 200 \d+ ms 4 steps\r$/m);
  const exit = once(child, "exit");
  // Ctrl-C: the terminal sends SIGINT.
  child.stdin.write("\x03");
  await exit;
  assert.match(said, /\d\d:\d\d:\d\d stopped\s+$/);
  assert.doesNotMatch(said, /readyz|"level"/);
});

/** Send requests until the server accepts no more; return the statuses of those it accepted. */
async function statusesUntilRefused(origin: string, seed: number): Promise<number[]> {
  const body = JSON.stringify({ prompt: "", length: 120, steps: 512, seed, early_stop: false });
  for (const statuses: number[] = []; ; ) {
    const response = await fetch(`${origin}/generate`, { method: "POST", headers: JSON_BODY, body }).catch(
      () => {},
    );
    if (!response || response.status === 503) return statuses;
    await response.text();
    statuses.push(response.status);
  }
}

const ENDINGS = [
  // Ctrl-C: the terminal sends SIGINT to npm, its shell and the server.
  { signal: "SIGINT", toGroup: true, last: "SIGINT" },
  { signal: "SIGTERM", toGroup: false, last: "npm ended" },
  { signal: "SIGKILL", toGroup: false, last: "npm ended" },
] as const;
for (const { signal, toGroup, last } of ENDINGS)
  test(`${signal} to ${toGroup ? "npm's group" : "npm"} ends the server, which answers first`, async () => {
    const flags = ["--port", "0", "--device", "cpu", "--model", "tiny", "--log-format", "json"];
    const args = ["--prefix", checkout, "start", "--silent", "--", ...flags];
    const child = spawn("npm", args, { detached: true, stdio: ["ignore", "pipe", "inherit"] });
    assert.ok(child.pid! > 1);
    const group = -child.pid!;
    after(() => {
      try {
        process.kill(group, "SIGKILL");
      } catch {} // they have ended
    });
    let output = "";
    let clients: Promise<number[]>[] | undefined;
    // The pipe closes when no process of npm's is left.
    for await (const chunk of child.stdout.setEncoding("utf8")) {
      output += chunk;
      const origin = /ready at (\S+)\n/.exec(output)?.[1];
      if (clients || !origin) continue;
      // Clients without a pause: requests run whenever the signal is noticed, on a fast machine too.
      clients = Array.from({ length: 8 }, (_, seed) => statusesUntilRefused(origin, seed));
      while (!/^didi_active_rows [1-9]/m.test(await (await fetch(`${origin}/metrics`)).text()));
      process.kill(toGroup ? group : child.pid!, signal);
    }
    const [, running, rest] = output.split(new RegExp(`"${last}: finishing (\\d+) running requests"`));
    assert.ok(Number(running) > 0, output);
    assert.match(rest!, /"stopped"/);
    const answered = (log: string) => log.match(/"path":"\/generate","status":200/g)?.length ?? 0;
    // Others were finished, and on their way to the client.
    assert.ok(answered(rest!) >= Number(running), output);
    const statuses = (await Promise.all(clients!)).flat();
    assert.deepEqual(statuses, Array(answered(output)).fill(200));
  });
