/** An operator follows docs/operate.md on a fresh clone. */

import assert from "node:assert/strict";
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { load } from "js-yaml";
import { skipWithout } from "../../deploy/support.ts";
import { outputOf, walk } from "./walk.ts";

test("an operator has two servers behind nginx, with keys, TLS, Redis and a scrape, within 15 minutes", {
  skip: skipWithout("nginx", "redis-server", "promtool", "prometheus"),
}, async (t) => {
  const { ran, root } = await walk(t, "docs/operate.md", 15 * 60_000);
  assert.match(outputOf(ran, /keys list/), /^alice .*600/m);
  // While nginx starts, curl may say that it tries again.
  const answer = /^\{.*\}$/m.exec(outputOf(ran, /^curl .*--retry 10/))![0];
  assert.equal(JSON.parse(answer).samples[0].tokens.length, 32);
  assert.equal(outputOf(ran, /^for port in/), '"cache":"hit"\n"cache":"hit"\n');
  assert.match(outputOf(ran, /^promtool check/), /SUCCESS/);
  const { data } = JSON.parse(outputOf(ran, /^QUERY=/));
  assert.deepEqual(
    data.result.map(({ value }: { value: [number, string] }) => value[1]),
    ["1", "1"],
  );
  // The new key is served by both, and by the one that is left.
  for (const pattern of [/--id bob/, /^kill -TERM/])
    assert.match(outputOf(ran, pattern), /^\{"name":"stories-didi",/m);
  // The services have all that their configurations name.
  const etc = (...path: string[]) => readFile(join(root, "etc", ...path), "utf8");
  const nginx = await etc("nginx", "nginx.conf");
  assert.match(nginx, /^ *access_log \/var\/log\/nginx\/access\.log requests;$/m);
  for (const [, file] of nginx.matchAll(/^ *ssl_certificate(?:_key)? (\S+);$/gm)) await etc("nginx", file!);
  const { rule_files } = load(await etc("prometheus", "prometheus.yml")) as { rule_files: string[] };
  for (const file of rule_files) await etc("prometheus", file);
  const unit = await etc("systemd", "system", "didi-serve@.service");
  const environment = await etc(/^EnvironmentFile=\/etc\/(.+)$/m.exec(unit)![1]!);
  assert.match(await etc(/^DIDI_API_KEYS=\/etc\/(.+)$/m.exec(environment)![1]!), /"id":"bob"/);
  await access(join(root, /^ExecStart=\S+ \/(\S+)/m.exec(unit)![1]!));
});
