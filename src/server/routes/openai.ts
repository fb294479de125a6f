/** `/v1`: OpenAI's completions API. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Engine } from "../../engine/engine.ts";
import type { GenerateRequest } from "../../engine/request.ts";
import type { RequestHandle } from "../../engine/subscriber.ts";
import { NotFoundError } from "../../errors.ts";
import type { Admission } from "../access/admission.ts";
import { noRoute, sendAs } from "../listener/refuse.ts";
import { type Prompted, ranked, requestsOf } from "../openai/requests.ts";
import { choicesOf, errorOf, scoredAlone, usageOf } from "../openai/responses.ts";
import { StreamedChoice } from "../openai/streamed-choice.ts";
import type { Schemas } from "../openapi.ts";
import { toProblem } from "../problem.ts";
import { schemaOf } from "../route-schema.ts";
import { answersOf, cancelAll, cancelOnClose } from "../streaming/cancellation.ts";
import { MOST_WAITING } from "../streaming/outbox.ts";
import { startEvents } from "../streaming/sse.ts";
import { recordOf } from "../telemetry/record.ts";

type CompletionRequest = Schemas["CompletionRequest"];
type CompletionResponse = Schemas["CompletionResponse"];

export async function openaiRoutes(
  app: FastifyInstance,
  { engine, admission }: { engine: Engine; admission: Admission },
) {
  const { name } = engine.model.manifest;
  const card = { id: name, object: "model" as const, created: 0, owned_by: "didi-serve" };

  function checkModel(model: string): void {
    if (model !== name) throw new NotFoundError(`the model ${model} is not served here: it is ${name}`);
  }

  app.setErrorHandler(sendAs(errorOf));
  app.setNotFoundHandler(noRoute);
  app.get(
    "/models",
    { schema: schemaOf("models") },
    async (): Promise<Schemas["ModelList"]> => ({ object: "list", data: [card] }),
  );
  app.get<{ Params: { model: string } }>(
    "/models/:model",
    { schema: schemaOf("modelByName") },
    async ({ params }) => {
      checkModel(params.model);
      return card;
    },
  );
  app.post("/chat/completions", { schema: schemaOf("chatCompletions") }, async () => {
    throw new NotFoundError(
      `${name} has no chat template, because it continues text: POST /v1/completions with the text as prompt`,
    );
  });
  interface Completions {
    Body: CompletionRequest;
    Reply: CompletionResponse;
  }
  app.post<Completions>("/completions", { schema: schemaOf("completions") }, async (request, reply) => {
    const { body } = request;
    checkModel(body.model);
    if (body.stream) return stream(admission, body, request, reply);
    const { tokenizer } = engine.model;
    const n = body.n ?? 1;
    const prompts = requestsOf(body, engine.model);
    const generated = generatedOf(body, prompts);
    const scored = prompts.filter((prompt) => prompt.scored);
    const handles = await admission.submitAll(request, [
      ...generated,
      ...scored.map((prompt) => prompt.scored!.request),
    ]);
    recordOf(request)?.add(...handles);
    cancelOnClose(reply.raw, handles);
    const results = await answersOf(handles);
    const scores = new Map(scored.map((prompt, i) => [prompt, results[generated.length + i]!.scores!]));
    const answers =
      generated.length > 0
        ? results.slice(0, generated.length)
        : prompts.map((prompt) => scoredAlone(prompt, n, tokenizer));
    return {
      ...head(handles, name),
      choices: prompts.flatMap((prompt, i) =>
        choicesOf(answers[i]!, prompt, i * n, tokenizer, scores.get(prompt)),
      ),
      usage: usageOf(answers),
    };
  });
}

/** Return the requests that generate text: none if the prompts are only scored. */
function generatedOf({ max_tokens }: CompletionRequest, prompts: readonly Prompted[]): GenerateRequest[] {
  return max_tokens === 0 ? [] : prompts.map(({ request }) => request);
}

/** Return the fields that begin every chunk and every answer. */
function head(handles: readonly RequestHandle[], model: string) {
  const created = Math.floor(Date.now() / 1000);
  return { id: `cmpl-${handles[0]!.id}`, object: "text_completion" as const, created, model };
}

/** Answer with chunks. Before it sends anything, throw what `submit` throws. */
async function stream(
  admission: Admission,
  body: CompletionRequest,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<undefined> {
  const n = body.n ?? 1;
  const { tokenizer } = admission.engine.model;
  const prompts = requestsOf(body, admission.engine.model);
  const generated = generatedOf(body, prompts);
  const scored = prompts.filter((prompt) => prompt.scored);
  const choices = prompts.map((prompt) =>
    Array.from({ length: n }, () => new StreamedChoice(prompt, tokenizer, body.diffusing ?? false)),
  );
  const send = (data: object | string) => {
    if (!reply.raw.destroyed)
      reply.raw.write(`data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
  };
  const usage = body.stream_options?.include_usage ? { usage: null } : {};
  const chunk = (index: number, choice: ReturnType<StreamedChoice["end"]>) =>
    send({ ...start, choices: [{ index, ...choice }], ...usage });
  const handles = await admission.submitAll(
    request,
    [...generated, ...scored.map((prompt) => prompt.scored!.request)],
    (i, step, settled) => {
      if (i >= generated.length) return;
      // The samples of a ranked answer are known only at its end.
      if (ranked(body) !== undefined) return;
      const taken = choices[i]![step.sample]!.take(step, handles[i]!.spans[0]!.start, settled);
      // A slow reader may miss a whole text: the next chunk replaces it.
      const skipped = body.diffusing && reply.raw.writableLength > MOST_WAITING;
      if (taken && !skipped) chunk(i * n + step.sample, taken);
    },
  );
  recordOf(request)?.add(...handles);
  const start = head(handles, admission.engine.model.manifest.name);
  reply.hijack();
  cancelOnClose(reply.raw, handles);
  startEvents(reply.raw, reply.getHeaders());
  reply.raw.flushHeaders();
  try {
    const scores = scored.map(async (prompt, i) => {
      const { scores } = await handles[generated.length + i]!.result;
      for (const choice of choices[prompts.indexOf(prompt)]!) choice.scores = scores;
    });
    const answers = await Promise.all(
      prompts.map(async (prompt, i) => {
        await scores[scored.indexOf(prompt)];
        const answer = generated.length > 0 ? await handles[i]!.result : scoredAlone(prompt, n, tokenizer);
        for (const [k, sample] of answer.samples.entries()) chunk(i * n + k, choices[i]![k]!.end(sample));
        return answer;
      }),
    );
    if ("usage" in usage) send({ ...start, choices: [], usage: usageOf(answers) });
    send("[DONE]");
  } catch (error) {
    cancelAll(handles);
    const { problem, bug } = toProblem(error);
    if (bug) request.log.error({ err: error }, "completion failed");
    recordOf(request)?.fail(problem);
    send(errorOf(problem));
  }
  reply.raw.end();
}
