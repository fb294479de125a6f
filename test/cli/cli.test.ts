import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { applyDeprecatedFlags } from "../../src/cli/check-flags.ts";
import type { ServeConfig } from "../../src/cli/options.ts";
import { StreamClient } from "../server/support.ts";
import { TEACHER, TINY_GUIDED } from "../support/engine.ts";
import { PLAIN as TINY_PLAIN } from "../support/models.ts";
import { scratch } from "../support/scratch.ts";
import { startServer } from "../support/server.ts";
import { didi, didiHere, testRefusals } from "./support.ts";

const root = scratch("cli");

/** A folder with the names of a checkpoint's files. */
const CHECKPOINT = join(root, "checkpoint");
await mkdir(CHECKPOINT);
for (const name of ["model", "discriminator"]) await writeFile(join(CHECKPOINT, `${name}.safetensors`), "");
const PLAIN = join(root, "plain");
await mkdir(PLAIN);
await writeFile(join(PLAIN, "model.safetensors"), "");
await writeFile(join(PLAIN, "config.json"), '{"architectures": ["MDLM"]}');
const GPT2 = join(root, "hf-gpt2");
await mkdir(GPT2);
await writeFile(join(GPT2, "model.safetensors"), "");
await writeFile(join(GPT2, "config.json"), '{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}');

const MODEL_FLAG = /--model <name\|folder>.*\(default:\s+"stories-didi",\s+env:\s+DIDI_MODEL\)/s;

const HELP: [command: string, explains: RegExp][] = [
  ["", /serve.*generate.*verify.*model/s],
  ["serve", MODEL_FLAG],
  ["generate", MODEL_FLAG],
  ["verify", /receipt.*Exits with 0 if the answers are equal/s],
  ["model", /list.*check.*convert/s],
  ["model list", /--json/],
  ["model check", /<name\|folder>.*--device.*exits with 1 at the first fault/s],
  ["model convert", /--from <dir>.*--true-sigma.*DIDI_PYTHON/s],
  ["keys", /add.*list.*revoke/s],
  [
    "keys add",
    /--file <file>.*DIDI_API_KEYS.*--id.*--expires.*--requests-per-minute.*--token-passes-per-minute/s,
  ],
  ["keys list", /--json/],
  ["keys revoke", /--id <name>/],
];

for (const [command, explains] of HELP)
  test(`didi-serve ${command} --help explains itself, with examples`, async () => {
    const { code, stdout } = await didiHere([...command.split(" ").filter(Boolean), "--help"]);
    assert.equal(code, 0);
    assert.match(stdout, /Usage: didi-serve/);
    assert.match(stdout, explains);
    assert.match(stdout, new RegExp(`Examples:\\n  .*didi-serve ${command}`));
  });

const model = (folder: string) => ["--model", folder];

testRefusals([
  ["an unknown flag", "serve --prot 1", {}, 2, /unknown option '--prot'/],
  ["an unknown command", "sevre", {}, 2, /unknown command 'sevre'/],
  ["a port that is no number", "serve --port http", {}, 2, /--port.*whole number from 0 to 65535/],
  ["a bad environment variable", "serve", { DIDI_PORT: "70000" }, 2, /DIDI_PORT.*whole number/],
  ["a check of nothing", "model check gone", {}, 1, /models.gone does not exist/],
  ["an unknown device", "serve --device tpu", {}, 2, /--device.*auto, cpu, cuda/],
  ["a temperature out of range", "generate x --temperature 9", {}, 2, /--temperature.*from 0 to 2/],
  ["a length beyond the context", "generate x --length 5000", {}, 2, /\/length: .*context of 256/],
  [
    "a precision the model lacks",
    `serve --model ${TEACHER} --precision int8`,
    {},
    1,
    /no int8 graphs: .* can be fp32/,
  ],
  ["a conversion of nothing", "model convert", {}, 2, /required option '--from <dir>'/],
  ["a checkpoint that is not there", "model convert --from gone --out x", {}, 1, /gone is not a folder/],
  [
    "a Python that is not there",
    `model convert --from ${CHECKPOINT} --out x`,
    { DIDI_PYTHON: "no-such-python" },
    1,
    /cannot run no-such-python.*pip install -r training.requirements-convert\.txt/,
  ],
  ["a model that is not there", "serve", { DIDI_MODEL: "gone" }, 1, /models.gone does not exist/],
  [
    "the second of two models",
    "serve",
    { DIDI_MODEL: `${TINY_PLAIN}, gone` },
    1,
    /models.gone does not exist/,
  ],
  [
    "one model twice",
    `serve --model ${TINY_PLAIN} --model ${TINY_PLAIN}`,
    {},
    2,
    /--model gives tiny-plain twice/,
  ],
  ["room for one model", "serve --max-loaded 1", {}, 2, /--max-loaded has no effect with one model/],
  [
    "a folder of the current directory as a name",
    "serve --model docs",
    {},
    1,
    /no model docs under .*give a path: \.\/docs/,
  ],
  [
    "a model of another program",
    `serve --model ${GPT2}`,
    {},
    1,
    /hf-gpt2 has no model\.json: config\.json says that it is a GPT2LMHeadModel; .* reads no checkpoints of it/,
  ],
  [
    "a checkpoint that is not converted",
    `serve --model ${PLAIN}`,
    {},
    1,
    /plain has no model\.json: it holds a checkpoint \(MDLM\): convert it with .* --out/,
  ],
  [
    "a conversion of a model of another program",
    `model convert --from ${GPT2} --out x`,
    {},
    1,
    /cannot convert .*hf-gpt2: config\.json says that it is a GPT2LMHeadModel/,
  ],
  [
    "a conversion without a discriminator",
    `model convert --from ${PLAIN} --family didi-instruct --out x`,
    {},
    1,
    /no discriminator\.safetensors: --family mdlm converts it/,
  ],
]);

test("--runtimes still sets the number of workers, with a warning; --workers wins", async () => {
  for (const [args, env] of [
    [["--runtimes", "2"], {}],
    [[], { DIDI_RUNTIMES: "2" }],
  ] as [string[], Record<string, string>][]) {
    const { code, stderr } = await didiHere(["serve", "--model", "gone", ...args], env);
    assert.equal(code, 1);
    assert.match(stderr, /--runtimes \(DIDI_RUNTIMES\) is deprecated: use --workers/);
  }
  const config = { runtimes: 2, workers: 1 } as ServeConfig;
  for (const [given, workers] of [
    [true, 1],
    [false, 2],
  ] as const) {
    const settled = { ...config };
    applyDeprecatedFlags(settled, () => given);
    assert.equal(settled.workers, workers);
  }
});

test("an empty environment variable is unset", async () => {
  // The model is looked for after every flag has been parsed.
  const { code, stderr } = await didiHere(["serve"], { DIDI_REDIS: "", DIDI_PORT: "", DIDI_MODEL: "gone" });
  assert.deepEqual([code, /models.gone does not exist/.test(stderr)], [1, true]);
});

test("generate prints prompt and text, the same for the same seed, and steps on demand", async () => {
  const args = [
    "generate",
    "Once upon a time",
    "--length",
    "20",
    "--steps",
    "5",
    "--seed",
    "3",
    "--device",
    "cpu",
  ];
  const plain = await didi(args);
  assert.equal(plain.code, 0, plain.stderr);
  assert.match(plain.stdout, /^Once upon a time/);
  const shown = await didiHere([...args, "--show-steps", "--json"]);
  const { samples, seed } = JSON.parse(shown.stdout);
  assert.equal(seed, 3);
  assert.equal(`Once upon a time${samples[0].text}\n`, plain.stdout);
  assert.equal(
    shown.stderr
      .trim()
      .split("\n")
      .filter((line) => line.startsWith("step ")).length,
    5,
  );
  assert.match(shown.stderr, /step 5\/5, 0 masked/);
});

test("an unknown flag of the process: one line, exit 2", async () => {
  assert.deepEqual(await didi(["serve", "--prot", "1"]), {
    code: 2,
    stdout: "",
    stderr: "didi-serve: unknown option '--prot' (Did you mean --port?)\n",
  });
});

test("SIGTERM finishes running requests, closes sockets with 1001 and exits with 0", async () => {
  const { child, origin, exit } = await startServer(["--device", "cpu", "--model", TINY_GUIDED]);
  const client = await StreamClient.connect(origin);
  client.send({ type: "generate", id: "a", prompt: "", length: 120, steps: 1024, seed: 1 });
  await client.find((event): event is Extract<typeof event, { type: "step" }> => event.type === "step");
  child.kill("SIGTERM");
  assert.equal((await client.end("a")).type, "done");
  assert.equal(await client.closed, 1001);
  assert.equal(await exit, 0);
});

test("after the grace period, running requests fail with 503", async () => {
  const { child, origin, exit } = await startServer([
    "--device",
    "cpu",
    ...model(TINY_GUIDED),
    "--grace",
    "0",
  ]);
  const client = await StreamClient.connect(origin);
  client.send({ type: "generate", id: "a", prompt: "", length: 120, steps: 1024, n: 16, seed: 1 });
  await client.find((event): event is Extract<typeof event, { type: "step" }> => event.type === "step");
  child.kill("SIGINT");
  const end = await client.end("a");
  assert.equal(end.type === "error" && end.error.status, 503);
  assert.equal(await exit, 0);
});

test("verify computes an answer again and prints the first difference", async () => {
  const flags = ["--model", TINY_GUIDED, "--steps", "4", "--seed", "5", "--json", "--threads", "1"];
  const { stdout } = await didiHere(["generate", "Once upon a time", "--length", "20", ...flags]);
  const path = join(root, "answer.json");
  const check = async (content: unknown, ...args: string[]) => {
    await writeFile(path, JSON.stringify(content));
    return didiHere(["verify", path, "--model", TINY_GUIDED, "--threads", "2", ...args]);
  };
  const answer = JSON.parse(stdout);
  const equal = await check(answer);
  assert.deepEqual([equal.code, equal.stdout], [0, "equal: every step of 20 tokens\n"]);
  assert.equal((await check(answer.receipt)).code, 0);

  const other = structuredClone(answer);
  other.receipt.request.seed = 6;
  const differs = await check(other);
  assert.equal(differs.code, 1);
  assert.match(
    differs.stdout,
    /^differs: sample 0, generated token \d+: \d+ in the file, \d+ computed now\n$/,
  );
  const template = "a {{choice:red|big blue}}{{mask:6}} b";
  const chosen = JSON.parse((await didiHere(["generate", template, "--remask", "0.3", ...flags])).stdout);
  assert.equal(chosen.choices.length, 1);
  assert.match((await check(chosen)).stdout, /^equal: /);
  chosen.receipt.choices_sha256 = "0".repeat(64);
  assert.match(
    (await check(chosen)).stdout,
    /^differs: the tokens are equal; .* scores of options differ\n$/,
  );

  other.receipt.model_sha256 = "0".repeat(64);
  assert.match((await check(other)).stdout, /this is another model/);

  const bad = await check({ samples: [] });
  assert.equal(bad.code, 2);
  assert.match(bad.stderr, /neither a receipt nor an answer with one/);
});
