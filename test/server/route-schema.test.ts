/** Routes validate and serialise with the schemas of openapi.yaml. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { CONTRACT } from "../../src/server/openapi.ts";
import { schemaOf, serializer } from "../../src/server/route-schema.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { serve } from "./support.ts";

const { engine, app } = await serve({}, TINY_GUIDED);

/** Requests whose answers together have every optional field. */
const REQUESTS: GenerateRequest[] = [
  { prompt: "Once", length: 12, steps: 3, seed: 1, n: 2, logprobs: true, trace: true, echo: true },
  { prompt: "Once", length: 12, steps: 4, n: 1, best_of: 3, guidance: { mode: "rgas" }, trace: true },
  {
    template: "a {{mask:3}} b {{mask:2}}",
    steps: 2,
    stop: ["x", "y"],
    temperature: 0.5,
    top_k: 3,
    top_p: 0.9,
  },
  { prompt: "Once", length: 8, steps: "auto", deadline_ms: 60_000 },
  { prompt_tokens: [1, 2, 3], length: 8, steps: 2, order: "confidence", stop: "z" },
];

for (const request of REQUESTS)
  test(`the serialised answer to ${JSON.stringify(request)} has every field of the answer`, async () => {
    const answer = await engine.submit({ ...request }).result;
    const text = serializer("GenerateResponse")(answer);
    assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(answer)));
  });

test("every JSON answer of the contract has a schema, and so has every JSON body", () => {
  let bodies = 0;
  for (const [path, operations] of Object.entries<Record<string, { operationId?: string }>>(CONTRACT.paths))
    for (const { operationId } of Object.values(operations)) {
      if (operationId === undefined) continue;
      const { body, response } = schemaOf(operationId) as { body?: object; response: Record<string, object> };
      if (body) bodies++;
      const none = ["/", "/docs", "/metrics", "/openapi.yaml"].includes(path);
      assert.equal("200" in response, !none && operationId !== "stream", operationId);
    }
  assert.equal(bodies, 7);
  assert.throws(() => schemaOf("nothing"), /openapi\.yaml has no operation nothing/);
});

test("a route checks the model before the body, and the body before the engine", async () => {
  const post = (url: string, payload: object) => app.inject({ method: "POST", url, payload });
  const unknown = await post("/v2/models/nobody/infer", { inputs: 7 });
  assert.equal(unknown.statusCode, 404);
  const refused = await post("/v1/completions", { model: "nobody", prompt: "a", temperature: 3 });
  assert.equal(refused.statusCode, 400);
  assert.equal(refused.json().error.param, "temperature");
});
