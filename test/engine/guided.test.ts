/**
 * Guided requests through engine and graphs, on a converted checkpoint of random weights with both quirks.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { StepEvent } from "../../src/engine/answers/step-emitter.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { InvalidRequestError } from "../../src/errors.ts";
import type { GraphName } from "../../src/runtime/protocol.ts";
import { GUIDED, SMC, startEngine, TEACHER, TINY_GUIDED, TINY_STUDENT } from "../support/engine.ts";

const engine = await startEngine({}, TINY_STUDENT);
/** The same weights without quirks, as in the golden vectors of the oracle. */
const oracle = await startEngine({}, TINY_GUIDED);

async function run(target: Engine, request: GenerateRequest) {
  const steps: StepEvent[] = [];
  const { samples, usage } = await target.submit(request, (step) => steps.push(step)).result;
  return { samples, usage, steps };
}

for (const golden of GUIDED)
  test(`equals the guided oracle, ${golden.steps} steps, ${golden.order}, ${JSON.stringify(golden.guidance)}`, async () => {
    const { length, steps, seed, temperature, order, prompt } = golden;
    const { candidates, scale_start, scale_end, rerank_ratio } = golden.guidance;
    const { samples, steps: records } = await run(oracle, {
      prompt: oracle.model.tokenizer.decode(prompt),
      length,
      steps,
      seed,
      temperature,
      order,
      guidance: { mode: "rgas", candidates, scale: [scale_start, scale_end], rerank_ratio },
    });
    assert.deepEqual(samples[0]!.tokens, golden.tokens.slice(prompt.length));
    for (const [k, record] of records.entries()) {
      const expected = golden.steps_taken[k]!;
      assert.deepEqual(
        record.revealed.map(({ position, token }) => [position, token]),
        golden.reveals[k]!.map(([position, token]) => [position, token]),
      );
      const { kind = "plain", rewards = [], chosen = null } = record.guidance ?? {};
      if (expected.rewards.length > 0) assert.deepEqual([kind, chosen], [expected.kind, expected.chosen]);
      assert.equal(rewards.length, expected.rewards.length);
      for (const [i, reward] of rewards.entries())
        assert.ok(Math.abs(reward - expected.rewards[i]!) < 1e-3 * Math.max(1, Math.abs(reward)));
    }
  });

for (const golden of SMC)
  test(`equals the oracle of particles, ${golden.steps} steps, ${golden.order}, ${golden.particles} particles`, async () => {
    const { length, steps, seed, temperature, order, prompt, particles, resample_below, weight } = golden;
    const rewards = { discriminator: weight };
    const { samples, steps: records } = await run(oracle, {
      ...{ prompt: oracle.model.tokenizer.decode(prompt), length, steps, seed, temperature, order },
      guidance: { mode: "smc", particles, resample_below, rewards },
    });
    assert.deepEqual(samples[0]!.tokens, golden.tokens.slice(prompt.length));
    assert.deepEqual(
      records.map(({ guidance }) => guidance?.ancestors ?? null),
      golden.steps_taken.map(({ ancestors }) => ancestors),
    );
    assert.equal(
      records.findLast(({ guidance }) => guidance)?.guidance?.chosen ?? golden.chosen,
      golden.chosen,
    );
    const shown = new Map(
      records.flatMap(({ revealed }) => revealed.map((one) => [one.position, one.token])),
    );
    assert.deepEqual(
      [...shown].sort(([a], [b]) => a - b).map(([, token]) => token),
      samples[0]!.tokens,
    );
    for (const [k, { guidance }] of records.entries()) {
      const expected = golden.steps_taken[k]!;
      assert.equal(guidance?.rewards.length ?? 0, expected.rewards.length);
      if (guidance) assert.ok(Math.abs(guidance.effective_sample_size! - expected.ess) < 1e-2);
      for (const [i, reward] of (guidance?.rewards ?? []).entries())
        assert.ok(Math.abs(reward - expected.rewards[i]!) < 1e-3 * Math.max(1, Math.abs(reward)));
    }
  });

const GUIDANCES: GenerateRequest["guidance"][] = [
  { mode: "rgas" },
  { mode: "rgas", candidates: 3, rerank_ratio: 1 },
  { mode: "rgas", scale: [5, 500], rerank_ratio: 0 },
  { mode: "smc", particles: 3, resample_below: 1 },
  undefined,
];
const requests = Array.from({ length: 15 }, (_, i): GenerateRequest => {
  const guidance = GUIDANCES[i % GUIDANCES.length];
  return {
    prompt: "abc".slice(i % 4),
    length: 9 + 8 * (i % 4),
    steps: 2 + (i % 5),
    seed: i,
    temperature: 1,
    guidance,
  };
});

test("guided and plain requests have the same bits alone, together, in any order, after kills", async () => {
  const alone = [];
  for (const request of requests) alone.push(await run(engine, request));
  const calls = new Map<GraphName, number>();
  const count = ({ graph, rows }: { graph: GraphName; rows: number }) =>
    calls.set(graph, Math.max(rows, calls.get(graph) ?? 0));
  engine.on("batch", count);
  assert.deepEqual(await Promise.all(requests.map((request) => run(engine, request))), alone);
  for (const graph of ["denoise", "tilt", "score"] as const)
    assert.ok(calls.get(graph)! > 1, `${graph} was not shared`);
  assert.deepEqual(
    (await Promise.all(requests.toReversed().map((request) => run(engine, request)))).reverse(),
    alone,
  );

  let kills = 0;
  const kill = ({ graph }: { graph: GraphName }) => {
    if (kills < 6 && graph !== "denoise") {
      kills++;
      process.kill(engine.pool.pids[0]!, "SIGKILL");
    }
  };
  engine.on("batch", kill);
  assert.deepEqual(await Promise.all(requests.map((request) => run(engine, request))), alone);
  assert.equal(kills, 6);
  engine.off("batch", kill);
  engine.off("batch", count);
});

test("first steps of one canvas with several budgets have the same bits in one batch as alone", async () => {
  const guidance = { mode: "rgas" as const, rerank_ratio: 1 };
  const all = [2, 16].map(
    (steps): GenerateRequest => ({ prompt: "", length: 24, steps, seed: 5, temperature: 1, guidance }),
  );
  const alone = [];
  for (const request of all) alone.push(await run(engine, request));
  const largest: number[] = [];
  const count = ({ rows }: { rows: number }) => largest.push(rows);
  engine.on("batch", count);
  const together = await Promise.all(all.map((request) => run(engine, request)));
  engine.off("batch", count);
  assert.equal(largest[0], 2, "each has a canvas of its own in the first call");
  assert.deepEqual(together, alone);
});

test("steps report their guidance, and usage counts its passes", async () => {
  const request = { prompt: "", length: 40, steps: 8, seed: 3, temperature: 1 };
  const { steps, usage } = await run(engine, { ...request, guidance: { mode: "rgas", candidates: 5 } });
  assert.deepEqual(
    steps.slice(0, 8).map(({ guidance }) => guidance?.kind),
    ["tilt", "tilt", "tilt", "tilt", "rerank", "rerank", "rerank", "rerank"],
  );
  for (const { guidance } of steps.slice(0, 8)) {
    assert.equal(guidance!.rewards.length, guidance!.kind === "tilt" ? 1 : 5);
    assert.equal(guidance!.chosen === undefined, guidance!.kind === "tilt");
  }
  assert.ok(usage.student_passes >= 8);
  assert.deepEqual([usage.discriminator_passes, usage.gradient_passes], [4 + 4 * 5, 4]);
  const plain = await run(engine, request);
  assert.ok(plain.steps.every((step) => step.guidance === undefined));
  assert.deepEqual([plain.usage.discriminator_passes, plain.usage.gradient_passes], [0, 0]);
});

test("several rewards have the same bits alone and together, and their weighted sum guides and ranks", async () => {
  const shipped = await startEngine();
  const base = { prompt: "Once", length: 20, steps: 3, temperature: 1 };
  const ask = (guidance: GenerateRequest["guidance"], more: Partial<GenerateRequest> = {}) =>
    run(shipped, { ...base, seed: 4, guidance, ...more });
  const of = (rewards: Record<string, number>) =>
    ask({ mode: "rgas", candidates: 2, rewards }).then(({ steps }) => steps[0]!.guidance!.rewards);
  const [own, fluency, both] = [
    await of({ discriminator: 1 }),
    await of({ fluency: 1 }),
    await of({ fluency: 0.5, discriminator: 2 }),
  ];
  assert.deepEqual(
    both,
    own.map((reward, i) => 2 * reward + 0.5 * fluency[i]!),
  );
  assert.ok(fluency.every((reward) => reward < 0));
  const rewards = { fluency: 0.3, discriminator: 0.1 };
  const requests = [
    () => ask({ mode: "smc", particles: 3, rewards }, { best_of: 2, rank_by: { fluency: 1 } }),
    () => ask({ mode: "rgas", rewards }),
    () => ask(undefined, { n: 2, best_of: 2, rank_by: rewards }),
    () => ask({ mode: "smc", particles: 2, rewards: { fluency: 1 } }),
  ];
  const alone = [];
  for (const request of requests) alone.push(await request());
  assert.deepEqual(await Promise.all(requests.map((request) => request())), alone);
  // Two samples of 3 particles, 3 steps at most of 2 rewards; then one pass of each sample.
  assert.equal(alone[0]!.usage.discriminator_passes, 2 * 3 * 3 * 2 + 2);
  assert.equal(alone[2]!.usage.discriminator_passes, 2 * 2);
  const { receipt } = await shipped.submit({ ...base, seed: 4, guidance: { mode: "smc" } }).result;
  const guidance = { mode: "smc", rewards: { discriminator: 1 }, particles: 4, resample_below: 0.5 };
  assert.deepEqual(receipt.request.guidance, guidance);
});

test("guidance that cannot be used is refused with its field", async () => {
  const plain = await startEngine({}, TEACHER);
  const base = { prompt: "", length: 4, steps: 2, seed: 0, temperature: 1 };
  const field = (target: Engine, guidance: GenerateRequest["guidance"]) => {
    try {
      target.submit({ ...base, guidance });
    } catch (error) {
      assert.ok(error instanceof InvalidRequestError);
      return error.fields[0];
    }
    return undefined;
  };
  const noDiscriminator = field(plain, { mode: "rgas" });
  assert.equal(noDiscriminator?.path, "/guidance/mode");
  assert.match(noDiscriminator!.message, /has no discriminator/);
  assert.equal(field(plain, { mode: "none" }), undefined);
  assert.throws(() => plain.submit({ ...base, best_of: 2 }), /\/best_of: .*has no discriminator to rank by/);
  const refused: [Partial<GenerateRequest>, RegExp][] = [
    [{ guidance: { mode: "none", candidates: 4 } }, /\/guidance\/candidates: has no effect without guidance/],
    [{ guidance: { mode: "rgas", particles: 4 } }, /\/guidance\/particles: .* set \/guidance\/mode to smc/],
    [{ guidance: { mode: "smc", scale: [1, 1] } }, /\/guidance\/scale: has no effect in mode smc/],
    [
      { guidance: { mode: "smc", rewards: { beauty: 1 } } },
      /\/guidance\/rewards\/beauty: is no reward of tiny-student, which has discriminator$/,
    ],
    [{ best_of: 2, rank_by: { beauty: 1 } }, /\/rank_by\/beauty: is no reward/],
    [{ rank_by: { discriminator: 1 } }, /\/rank_by: has no effect without best_of/],
    [
      { guidance: { mode: "rgas", rerank_ratio: 0.5, rewards: { discriminator: 2 } } },
      /\/guidance\/rerank_ratio: must be 1 with these rewards/,
    ],
    [{ guidance: { mode: "smc" }, order: "confidence" }, /\/order: confidence cannot be guided/],
    [{ guidance: { mode: "smc" }, block_length: 2 }, /\/block_length: cannot stand beside guidance/],
    [{ guidance: { mode: "smc" }, remask: { mode: "random", rate: 0.1 } }, /\/remask: cannot stand beside/],
    [{ guidance: { mode: "smc" }, logprobs: true, top_logprobs: 2 }, /\/top_logprobs: cannot stand beside/],
    [{ guidance: { mode: "smc" }, steps: "auto", deadline_ms: 500 }, /\/steps: cannot be auto/],
  ];
  for (const [fields, message] of refused)
    assert.throws(() => engine.submit({ ...base, ...fields }), message);
});

test("top-k and top-p change the draws, and top-k 1 equals temperature 0", async () => {
  const request = { prompt: "ab", length: 30, steps: 4, seed: 9, temperature: 1 };
  const { samples: plain } = await run(engine, request);
  const { samples: greedy } = await run(engine, { ...request, temperature: 0 });
  assert.deepEqual((await run(engine, { ...request, top_k: 1 })).samples, greedy);
  assert.deepEqual((await run(engine, { ...request, top_p: 1e-6 })).samples, greedy);
  assert.notDeepEqual((await run(engine, { ...request, top_k: 5 })).samples, plain);
  assert.deepEqual((await run(engine, { ...request, top_k: 0, top_p: 1 })).samples, plain);
});

test("guided draws use the temperature of the model unless the request sets one", async () => {
  const shipped = await startEngine();
  const own = 0.9;
  const { manifest } = shipped.model;
  Object.assign(manifest.guidance!, { temperature: own });
  Object.assign(manifest, { defaults: { temperature: 1.5 } });
  const request: GenerateRequest = { prompt: "Once", length: 20, steps: 4, seed: 2 };
  const guidance = { mode: "rgas" } as const;
  const temperature = async (more: Partial<GenerateRequest>) =>
    (await shipped.submit({ ...request, ...more }).result).receipt.request.temperature;
  assert.equal(await temperature({}), 1.5);
  assert.equal(await temperature({ guidance }), own);
  assert.equal(await temperature({ guidance, temperature: 1 }), 1);
  const { samples } = await run(shipped, { ...request, guidance });
  assert.deepEqual((await run(shipped, { ...request, guidance, temperature: own })).samples, samples);
  assert.notDeepEqual((await run(shipped, { ...request, guidance, temperature: 1 })).samples, samples);
});
