/** API keys on the command line, flags that the server refuses, and SIGHUP. */

import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { after, test } from "node:test";
import type { TLSSocket } from "node:tls";
import { StreamClient } from "../server/support.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { certify } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";
import { startServer } from "../support/server.ts";
import { didi, didiHere, testRefusals } from "./support.ts";

const root = scratch("access");

/** Start the server with the smallest model, and kill it after the tests. */
async function serve(...args: string[]) {
  const server = await startServer(["--device", "cpu", "--model", TINY_GUIDED, ...args]);
  after(() => server.stop());
  return server;
}

test("keys are added, listed and revoked; standard output holds the key alone", async () => {
  const file = join(root, "keys.jsonl");
  const keys = (...args: string[]) => didiHere(["keys", ...args, "--file", file]);
  const added = await keys(
    "add",
    "--id",
    "alice",
    "--requests-per-minute",
    "60",
    "--concurrent-requests",
    "2",
  );
  assert.equal(added.code, 0, added.stderr);
  assert.match(added.stdout, /^didi_alice_[\w-]{43}\n$/);
  assert.doesNotMatch(added.stderr, /didi_alice_/);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  await writeFile(file, `# the team\n${await readFile(file, "utf8")}`);
  assert.equal((await keys("add", "--id", "bob.1")).code, 0);
  const again = await keys("add", "--id", "alice");
  assert.deepEqual([again.code, again.stdout], [2, ""]);
  assert.match(again.stderr, /^didi-serve: [^\n]*already has a key alice[^\n]*\n$/);
  const listed = JSON.parse((await keys("list", "--json")).stdout);
  assert.deepEqual(
    listed.map(({ id, limits }: { id: string; limits: object }) => [id, limits]),
    [
      ["alice", { requests_per_minute: 60, concurrent_requests: 2 }],
      ["bob.1", {}],
    ],
  );
  assert.match(
    (await keys("list")).stdout,
    new RegExp(
      "^id +created +expires +limits\\n" +
        "alice +\\d{4}-\\d\\d-\\d\\d +never +60 requests per minute, 2 concurrent requests\\n" +
        "bob\\.1 .*none\\n$",
    ),
  );
  const removed = await keys("revoke", "--id", "alice");
  assert.equal(removed.code, 0, removed.stderr);
  assert.match(await readFile(file, "utf8"), /^# the team\n\{"id":"bob\.1"[^\n]*\}\n$/);
  const gone = await keys("remove", "--id", "alice");
  assert.deepEqual([gone.code, /has no key alice/.test(gone.stderr)], [2, true]);
  const bad = await keys("add", "--id", "a_b");
  assert.deepEqual([bad.code, /letters, digits, dots and dashes/.test(bad.stderr)], [2, true]);
  await writeFile(`${file}.new`, "");
  const locked = await keys("add", "--id", "carol");
  assert.deepEqual([locked.code, /another command is changing the keys/.test(locked.stderr)], [1, true]);
});

test("keys expire; a date that is wrong is refused", async () => {
  const file = join(root, "expiring.jsonl");
  const add = (id: string, date: string) =>
    didiHere(["keys", "add", "--file", file, "--id", id, "--expires", date]);
  assert.equal((await add("old", "2020-01-31")).code, 0);
  assert.equal((await add("new", "2999-01-31T12:00:00+02:00")).code, 0);
  const { stdout } = await didiHere(["keys", "list", "--file", file, "--json"]);
  assert.deepEqual(
    JSON.parse(stdout).map(({ expires }: { expires: string }) => expires),
    ["2020-01-31T00:00:00.000Z", "2999-01-31T10:00:00.000Z"],
  );
  assert.match(
    (await didiHere(["keys", "list", "--file", file])).stdout,
    /^old .* 2020-01-31 \(expired\) +none\nnew .* 2999-01-31 +none\n/m,
  );
  const wrong = await add("bad", "tomorrow");
  assert.deepEqual([wrong.code, /--expires.*a date such as 2027-01-31/.test(wrong.stderr)], [2, true]);
});

test("of several commands that add the same key at once, one succeeds", async () => {
  const file = join(root, "race.jsonl");
  const runs = await Promise.all(
    Array.from({ length: 3 }, () => didi(["keys", "add", "--file", file, "--id", "alice"])),
  );
  assert.equal(runs.filter(({ code }) => code === 0).length, 1);
  assert.equal((await readFile(file, "utf8")).split("\n").filter(Boolean).length, 1);
});

testRefusals([
  [
    "all addresses without keys",
    "serve --host 0.0.0.0",
    {},
    2,
    /0\.0\.0\.0 without API keys.*--api-keys FILE.*--insecure/,
  ],
  [
    "all addresses, of the variable",
    "serve",
    { DIDI_HOST: "::" },
    2,
    /will not listen on :: without API keys/,
  ],
  ["a variable that says no", "serve --host 0.0.0.0", { DIDI_INSECURE: "0" }, 2, /without API keys/],
  [
    "an admin port for all",
    "serve --admin-port 0 --admin-host 0.0.0.0",
    {},
    2,
    /0\.0\.0\.0 without API keys/,
  ],
  ["a certificate without its key", "serve --tls-cert x", {}, 2, /--tls-cert needs --tls-key/],
  [
    "a page that is no origin",
    "serve --allow-origin https://a.example/x",
    {},
    2,
    /must be scheme, host and port.*, not https:\/\/a\.example\/x/,
  ],
  [
    "keys that are not there",
    "serve --api-keys /nowhere",
    {},
    1,
    /cannot read the API keys of \/nowhere: ENOENT/,
  ],
  [
    "an admin address without its port",
    "serve --admin-host 127.0.0.2",
    {},
    2,
    /--admin-host has no effect without/,
  ],
  [
    "the same of a variable",
    "serve",
    { DIDI_ADMIN_HOST: "127.0.0.1" },
    2,
    /--admin-host has no effect without/,
  ],
  [
    "parts of batches on CUDA",
    "serve --split 2 --device cuda",
    {},
    2,
    /--split has no effect with --device cuda/,
  ],
  ["a device that there is not", "serve --device gpu", {}, 2, /must be auto, cpu, cuda, or cuda: and the/],
  ["a GPU twice", "serve --device cuda:1,0,1", {}, 2, /names a GPU twice/],
  [
    "workers that do not fit the GPUs",
    "serve --device cuda:0,1 --workers 3",
    {},
    2,
    /--workers 3 is no multiple of the 2 GPUs of --device cuda:0,1: leave it out/,
  ],
  ["how long to keep nothing", "serve --cache-mb 0 --cache-ttl 60", {}, 2, /--cache-ttl has no effect/],
  [
    "a Redis for nothing",
    "serve --cache-mb 0 --redis redis://127.0.0.1:1",
    {},
    2,
    /--redis has no effect without --api-keys/,
  ],
  ["one port for both", "serve --port 8123 --admin-port 8123", {}, 2, /are both 8123/],
]);

test("--insecure, --allow-origin and --admin-port take effect", async () => {
  const page = "https://app.example";
  const args = ["--host", "0.0.0.0", "--insecure", "--allow-origin", `${page},http://localhost:3000`];
  const { origin, said, child, exit } = await serve(...args, "--admin-port", "0");
  const [, admin] = await said(/\/metrics and \/docs at (http:\S+),/);
  assert.match(await (await fetch(`${admin}/metrics`)).text(), /didi_ready/);
  assert.equal((await fetch(`${origin}/metrics`)).status, 404);
  const answer = await fetch(`${origin}/model`, { headers: { origin: page } });
  assert.equal(answer.headers.get("access-control-allow-origin"), page);
  // Without files to reload, SIGHUP stops the server.
  child.kill("SIGHUP");
  assert.equal(await exit, 0);
});

test("SIGHUP reloads keys and certificate; an invalid file is one error and changes nothing", async () => {
  const [file, cert, key] = [join(root, "live.jsonl"), join(root, "cert.pem"), join(root, "key.pem")];
  const keyOf = async (id: string) =>
    (await didiHere(["keys", "add", "--file", file, "--id", id])).stdout.trim();
  const alice = await keyOf("alice");
  certify("first", cert, key);
  const args = ["--api-keys", file, "--tls-cert", cert, "--tls-key", key, "--host", "0.0.0.0"];
  const { child, origin, said, output, exit } = await serve(...args, "--admin-port", "0");
  // The admin port for Prometheus on this machine: HTTP without a key.
  const [, admin] = await said(/\/metrics and \/docs at (http:\S+),/);
  assert.equal((await fetch(`${admin}/metrics`)).status, 200);
  assert.match(output(), /curl -s https:.*authorization: Bearer KEY/);
  const at = origin.replace("0.0.0.0", "127.0.0.1");
  /** Return the status with a key, and the name on the certificate. */
  const ask = (apiKey: string) =>
    new Promise<[number, string]>((resolve, reject) => {
      const headers = { "x-api-key": apiKey };
      request(`${at}/model`, { rejectUnauthorized: false, agent: false, headers }, (response) => {
        resolve([
          response.statusCode!,
          String((response.socket as TLSSocket).getPeerCertificate().subject.CN),
        ]);
        response.resume();
      })
        .once("error", reject)
        .end();
    });
  assert.deepEqual(await ask(alice), [200, "first"]);
  const headers = { "x-api-key": alice };
  const socket = await StreamClient.connect(at, { headers, rejectUnauthorized: false });

  const bob = await keyOf("bob");
  assert.deepEqual(await ask(bob), [401, "first"]);
  certify("second", cert, key);
  child.kill("SIGHUP");
  await said(/SIGHUP: [^"]*live\.jsonl read again: 2 API keys, 1 new, 0 revoked/);
  await said(/SIGHUP: [^"]* read again: new connections get this certificate/);
  assert.deepEqual(await ask(bob), [200, "second"]);

  const good = await readFile(file, "utf8");
  await writeFile(file, `${good}broken\n`);
  await writeFile(cert, "broken");
  child.kill("SIGHUP");
  await said(/SIGHUP: [^"]*live\.jsonl:3 is not JSON[^"]*the values read before stay in use/);
  await said(/SIGHUP: [^"]*are not a certificate and its key[^"]*the values read before stay in use/);
  assert.deepEqual(await ask(bob), [200, "second"]);
  assert.equal(socket.socket.readyState, socket.socket.OPEN);

  await writeFile(file, good);
  assert.equal((await didiHere(["keys", "remove", "--file", file, "--id", "alice"])).code, 0);
  child.kill("SIGHUP");
  assert.equal(await socket.closed, 4401);
  assert.equal((await ask(alice))[0], 401);
  assert.equal((await ask(bob))[0], 200);
  assert.ok(!output().includes(alice.slice(-43)) && !output().includes(bob.slice(-43)));
  child.kill("SIGTERM");
  assert.equal(await exit, 0);
});
