/** `npm run contract`: tests a running server against openapi.yaml with schemathesis. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { flag, script } from "../../loadtest/cli/script.ts";
import { Server } from "../../loadtest/servers/server.ts";
import { integer } from "../../src/cli/parsers.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { createKey } from "../../src/server/access/keys.ts";

await script<{ bin: string; seconds: number; seed: number }>(
  "contract",
  "Hold a server to openapi.yaml with schemathesis.",
  [
    flag("--bin <folder>", "schemathesis with test/contract/requirements.txt (default: in PATH)"),
    flag("--seconds <n>", "time for generated requests", integer(1, 86_400), 90),
    flag("--seed <n>", "seed of the requests", integer(0, 2 ** 31), 1),
  ],
  async ({ bin = "", seconds, seed }) => {
    // A model with random weights is enough to test the API.
    const model = join(PACKAGE_ROOT, "test", "fixtures", "tiny-guided");
    const scratch = mkdtempSync(join(tmpdir(), "didi-contract-"));
    // With keys, to test that they are required.
    const { key, record } = createKey("contract", {});
    const keys = join(scratch, "keys.jsonl");
    writeFileSync(keys, JSON.stringify(record));
    const server = await Server.start(["--model", model, "--api-keys", keys]);
    process.once("exit", () => rmSync(scratch, { recursive: true, force: true }));
    process.once("SIGINT", () => process.exit(130));
    const { origin } = server;
    const config = join(PACKAGE_ROOT, "test", "contract", "schemathesis.toml");
    const run = [
      "--config-file",
      config,
      "run",
      `${origin}/openapi.yaml`,
      "--url",
      origin,
      "--seed",
      `${seed}`,
    ];
    run.push("--phases", "examples,coverage,fuzzing", "--max-time", `${seconds}`, "--continue-on-failure");
    // Whether a request that the schema allows is accepted depends on the model, its context above all.
    run.push("--exclude-checks", "positive_data_acceptance", "--request-timeout", "30", "--warnings", "off");
    run.push("--exclude-path", "/generate/stream", "--header", `Authorization: Bearer ${key}`);

    const child = spawn(join(bin, "schemathesis"), run, { cwd: scratch, stdio: "inherit" });
    const [code] = (await once(child, "exit")) as [number | null];
    const alive = await server.ready();
    if (!alive) console.error("the server is not ready afterwards");
    return code === 0 && alive ? 0 : 1;
  },
);
