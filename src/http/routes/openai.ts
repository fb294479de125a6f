/** `/v1`: for clients that speak OpenAI's completions API. */

import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Answer } from "../../engine/answer.ts";
import type { Engine, Ticket } from "../../engine/engine.ts";
import type { StepEvent } from "../../engine/narrator.ts";
import { NotFoundError } from "../../errors.ts";
import { Growth } from "../openai/growth.ts";
import { inside, type Prompted, requestsOf } from "../openai/requests.ts";
import { choicesOf, errorOf, finishReason, usageOf } from "../openai/responses.ts";
import { type Schemas, valid, validator } from "../openapi.ts";
import { noRoute, toProblem } from "../problem.ts";

type CompletionRequest = Schemas["CompletionRequest"];
type CompletionResponse = Schemas["CompletionResponse"];

/** A prompt that is being answered. */
interface Running {
  prompted: Prompted;
  ticket: Ticket;
}

export async function openaiRoutes(app: FastifyInstance, { engine }: { engine: Engine }) {
  const validate = validator("CompletionRequest");
  const { name } = engine.model.manifest;
  const card = { id: name, object: "model" as const, created: 0, owned_by: "didi-serve" };

  function checkModel(model: string): void {
    if (model !== name) throw new NotFoundError(`the model ${model} is not served here: it is ${name}`);
  }

  app.setErrorHandler((error: FastifyError, request, reply) => {
    const { problem, bug } = toProblem(error);
    if (bug) request.log.error({ err: error }, "request failed");
    if (problem.retry_after !== undefined) reply.header("retry-after", problem.retry_after);
    reply.code(problem.status).header("x-request-id", request.id).send(errorOf(problem));
  });
  app.setNotFoundHandler(noRoute);
  app.get("/models", async (): Promise<Schemas["ModelList"]> => ({ object: "list", data: [card] }));
  app.get<{ Params: { model: string } }>("/models/:model", async ({ params }) => {
    checkModel(params.model);
    return card;
  });
  app.post("/completions", async (request, reply): Promise<CompletionResponse | undefined> => {
    const body = valid(validate(request.body));
    checkModel(body.model);
    if (body.stream) return stream(engine, body, request, reply);
    const running = submitAll(engine, requestsOf(body), () => undefined);
    reply.raw.once("close", () => running.forEach(({ ticket }) => void ticket.cancel()));
    const answers = await all(running);
    const n = body.n ?? 1;
    return {
      ...head(running, name),
      choices: answers.flatMap((answer, i) =>
        choicesOf(answer, running[i]!.prompted, i * n, engine.model.tokenizer),
      ),
      usage: usageOf(answers),
    };
  });
}

/** What every chunk begins with. */
function head(running: readonly Running[], model: string) {
  const created = Math.floor(Date.now() / 1000);
  return { id: `cmpl-${running[0]!.ticket.id}`, object: "text_completion" as const, created, model };
}

/** Submits them all or none. Throws what `submit` throws. */
function submitAll(
  engine: Engine,
  prompts: readonly Prompted[],
  listen: (prompt: number) => ((step: StepEvent) => void) | undefined,
): Running[] {
  const running: Running[] = [];
  try {
    for (const [i, prompted] of prompts.entries())
      running.push({ prompted, ticket: engine.submit(prompted.request, listen(i)) });
    return running;
  } catch (error) {
    for (const { ticket } of running) ticket.cancel();
    throw error;
  }
}

/** Every answer; the first failure ends them all. */
async function all(running: readonly Running[]): Promise<Answer[]> {
  try {
    return await Promise.all(running.map(({ ticket }) => ticket.result));
  } catch (error) {
    for (const { ticket } of running) ticket.cancel();
    throw error;
  }
}

/** Answers with chunks. Throws, before anything is sent, what `submit` throws. */
async function stream(
  engine: Engine,
  body: CompletionRequest,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<undefined> {
  const n = body.n ?? 1;
  const prompts = requestsOf(body);
  const stops = prompts.map(({ request: { stop = [] } }) => (typeof stop === "string" ? [stop] : stop));
  const growths = prompts.map((_, i) => Array.from({ length: n }, () => new Growth(stops[i]!)));
  const send = (data: object | string) => {
    if (!reply.raw.destroyed)
      reply.raw.write(`data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
  };
  const chunk = (index: number, text: string, finish_reason: "stop" | "length" | null = null) =>
    send({ ...start, choices: [{ index, text, logprobs: null, finish_reason }] });
  // Which samples are answered is known before the end only where they are not ranked.
  const running = submitAll(engine, prompts, (i) => (step) => {
    if (body.best_of != null) return;
    const text = inside(step.text, prompts[i]!);
    const told = body.diffusing ? text : growths[i]![step.sample]!.take(text);
    if (told !== "") chunk(i * n + step.sample, told);
  });
  const start = head(running, engine.model.manifest.name);
  reply.hijack();
  reply.raw.once("close", () => running.forEach(({ ticket }) => void ticket.cancel()));
  for (const [key, value] of Object.entries(reply.getHeaders())) reply.raw.setHeader(key, value!);
  reply.raw.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
  });
  try {
    const answers = await Promise.all(
      running.map(async ({ ticket, prompted }, i) => {
        const answer = await ticket.result;
        for (const [k, sample] of answer.samples.entries()) {
          const text = inside(sample.text, prompted);
          chunk(i * n + k, body.diffusing ? text : growths[i]![k]!.end(text), finishReason(sample));
        }
        return answer;
      }),
    );
    if (body.stream_options?.include_usage) send({ ...start, choices: [], usage: usageOf(answers) });
    send("[DONE]");
  } catch (error) {
    for (const { ticket } of running) ticket.cancel();
    const { problem, bug } = toProblem(error);
    if (bug) request.log.error({ err: error }, "completion failed");
    send(errorOf(problem));
  }
  reply.raw.end();
}
