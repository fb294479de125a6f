/** `npm run contract`: holds a live server to openapi.yaml with schemathesis, and to OpenAI's client for Python. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { untilReady } from "../../loadtest/servers/until-ready.ts";
import { createKey } from "../../src/http/access/keys.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const { values: flags } = parseArgs({
  options: {
    bin: { type: "string", default: "" },
    seconds: { type: "string", default: "90" },
    seed: { type: "string", default: "1" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run contract -- [flags]
  --bin <folder>  with python3 and schemathesis, after pip install -r test/contract/requirements.txt
                  (default: those of PATH)
  --seconds <n>   time for generated requests (default 90)
  --seed <n>      of the requests (default 1)`);
  process.exit(0);
}
// A model of random weights: what is tried is the face.
const model = join(PACKAGE_ROOT, "test", "fixtures", "tiny-guided");
const scratch = mkdtempSync(join(tmpdir(), "didi-contract-"));
// With keys, so that it is seen that they are asked for.
const { key, record } = createKey("contract", {});
const keys = join(scratch, "keys.jsonl");
writeFileSync(keys, JSON.stringify(record));
const args = ["dist/main.js", "serve", "--port", "0", "--device", "cpu", "--log-level", "error"];
const server = spawn(process.execPath, [...args, "--model", model, "--api-keys", keys], {
  cwd: PACKAGE_ROOT,
  stdio: ["ignore", "pipe", "inherit"],
});
process.once("exit", () => {
  server.kill("SIGKILL");
  rmSync(scratch, { recursive: true, force: true });
});
process.once("SIGINT", () => process.exit(130));
const { origin } = await untilReady(server);
const config = join(PACKAGE_ROOT, "test", "contract", "schemathesis.toml");
const run = ["--config-file", config, "run", `${origin}/openapi.yaml`, "--url", origin, "--seed", flags.seed];
run.push("--phases", "examples,coverage,fuzzing", "--max-time", flags.seconds, "--continue-on-failure");
// Whether a request that the schema allows is accepted depends on the model, its context above all.
run.push("--exclude-checks", "positive_data_acceptance", "--request-timeout", "30", "--warnings", "off");
run.push("--exclude-path", "/generate/stream", "--header", `Authorization: Bearer ${key}`);

/** Runs a program to its end; returns whether it succeeded. */
async function succeeds(program: string, args: string[]): Promise<boolean> {
  const child = spawn(join(flags.bin, program), args, { cwd: scratch, stdio: "inherit" });
  const [code] = (await once(child, "exit")) as [number | null];
  return code === 0;
}

const spoken = await succeeds("python3", [
  join(PACKAGE_ROOT, "test", "contract", "openai_client.py"),
  origin,
  key,
]);
const held = await succeeds("schemathesis", run);
const alive = (await fetch(`${origin}/readyz`)).ok;
if (!alive) console.error("the server is not ready afterwards");
process.exit(spoken && held && alive ? 0 : 1);
