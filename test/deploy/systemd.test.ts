/** deploy/systemd, and the ports on which the parts of deploy/ meet. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { load } from "js-yaml";
import { SERVE_OPTIONS } from "../../src/cli/options.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { programPath, runProgram, skipWithout } from "./support.ts";

const DEPLOY = join(PACKAGE_ROOT, "deploy");
const UNIT = join(DEPLOY, "systemd", "didi-serve@.service");
const unit = await readFile(UNIT, "utf8");

test("systemd accepts the unit without a warning", {
  skip: skipWithout("systemd-analyze"),
}, async () => {
  const verify = (path: string) =>
    runProgram(programPath("systemd-analyze"), ["verify", "--man=no", path], DEPLOY);
  assert.equal(await verify(UNIT), "");
});

test("the unit has flags that the server knows, and more time to stop than --grace and 5 seconds", () => {
  const [, command] = /^ExecStart=\S+ \S+ serve (.+)$/m.exec(unit)!;
  for (const [flag] of command!.matchAll(/--[\w-]+/g))
    assert.ok(
      SERVE_OPTIONS.some(({ long }) => long === flag),
      flag,
    );
  const grace = SERVE_OPTIONS.find(({ long }) => long === "--grace")!.defaultValue as number;
  assert.ok(Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)![1]) >= grace + 5);
});

test("nginx balances the ports of the servers, and Prometheus scrapes their admin ports", async () => {
  const port = (flag: string) => new RegExp(`--${flag} (\\d+)%i`).exec(unit)![1]!;
  const addressesOf = (flag: string) => ["1", "2"].map((server) => `127.0.0.1:${port(flag)}${server}`);
  const nginx = await readFile(join(DEPLOY, "nginx", "nginx.conf"), "utf8");
  const balanced = Array.from(nginx.matchAll(/^ +server (\S+) max_fails/gm), ([, address]) => address);
  assert.deepEqual(balanced, addressesOf("port"));
  const { scrape_configs } = load(await readFile(join(DEPLOY, "prometheus", "prometheus.yml"), "utf8")) as {
    scrape_configs: { static_configs: { targets: string[] }[] }[];
  };
  const scraped = scrape_configs.flatMap(({ static_configs }) =>
    static_configs.flatMap(({ targets }) => targets),
  );
  assert.deepEqual(scraped, addressesOf("admin-port"));
});
