/** Answer a completion request, whole or as a stream of chunks, in the shape of its API. */

import type { FastifyReply, FastifyRequest } from "fastify";
import type { GenerateRequest } from "../../engine/request.ts";
import type { RequestHandle } from "../../engine/subscriber.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Submission } from "../access/admission.ts";
import type { Schemas } from "../openapi.ts";
import type { Problem } from "../problem.ts";
import { answersOf, cancelAll, cancelOnClose } from "../streaming/cancellation.ts";
import { MOST_WAITING } from "../streaming/outbox.ts";
import { startEvents } from "../streaming/sse.ts";
import { failed, recordOf } from "../telemetry/record.ts";
import { deltaChoice, messageChoice } from "./chat.ts";
import { ranked, requestsOf } from "./requests.ts";
import {
  chatErrorOf,
  choicesOf,
  completionChoice,
  errorOf,
  type Part,
  scoredAlone,
  usageOf,
} from "./responses.ts";
import { StreamedChoice } from "./streamed-choice.ts";

type CompletionRequest = Schemas["CompletionRequest"];

/** How an API writes answers. */
interface Shape<Whole, Choice> {
  /** Prefix of the ids of answers. */
  prefix: string;
  /** Kind of a whole answer, and of a chunk. */
  whole: Whole;
  chunk: string;
  choice(part: Part, tokenizer: Tokenizer): Choice;
  /** `isFirst` of the parts of its choice. */
  delta(part: Part, tokenizer: Tokenizer, isFirst: boolean): object;
  errorOf(problem: Problem): Schemas["OpenAIError"];
}

/** OpenAI's completions API. */
export const COMPLETION: Shape<"text_completion", Schemas["CompletionChoice"]> = {
  prefix: "cmpl",
  whole: "text_completion",
  chunk: "text_completion",
  choice: completionChoice,
  delta: completionChoice,
  errorOf,
};

/** OpenAI's chat API. */
export const CHAT: Shape<"chat.completion", Schemas["ChatResponse"]["choices"][number]> = {
  prefix: "chatcmpl",
  whole: "chat.completion",
  chunk: "chat.completion.chunk",
  choice: messageChoice,
  delta: deltaChoice,
  errorOf: chatErrorOf,
};

/** The prompts of a request, and the requests of the engine for them. */
function planOf(body: CompletionRequest, { engine }: Submission) {
  const prompts = requestsOf(body, engine.model);
  // Prompts may be scored alone.
  const generated: GenerateRequest[] = body.max_tokens === 0 ? [] : prompts.map(({ request }) => request);
  const scored = prompts.filter((prompt) => prompt.scored);
  return {
    prompts,
    generated,
    scored,
    all: [...generated, ...scored.map((prompt) => prompt.scored!.request)],
  };
}

/** Return the fields that begin every chunk and every answer. */
function head<Kind>(prefix: string, object: Kind, handles: readonly RequestHandle[], model: string) {
  return { id: `${prefix}-${handles[0]!.id}`, object, created: Math.floor(Date.now() / 1000), model };
}

/**
 * Answer a request: return the whole answer, or send a stream and return undefined. Rejects with the errors
 * of `requestsOf` and of `submitAll`, of a stream before it sends anything.
 */
export async function answer<Whole, Choice>(
  shape: Shape<Whole, Choice>,
  submission: Submission,
  body: CompletionRequest,
  request: FastifyRequest,
  reply: FastifyReply,
) {
  if (body.stream) return stream(shape, submission, body, request, reply);
  const { tokenizer, manifest } = submission.engine.model;
  const n = body.n ?? 1;
  const { prompts, generated, scored, all } = planOf(body, submission);
  const handles = await submission.submitAll(all);
  recordOf(request)?.add(...handles);
  cancelOnClose(reply.raw, handles);
  const results = await answersOf(handles);
  const scores = new Map(scored.map((prompt, i) => [prompt, results[generated.length + i]!.scores!]));
  const answers =
    generated.length > 0
      ? results.slice(0, generated.length)
      : prompts.map((prompt) => scoredAlone(prompt, n, tokenizer));
  return {
    ...head(shape.prefix, shape.whole, handles, manifest.name),
    choices: prompts.flatMap((prompt, i) =>
      choicesOf(answers[i]!, prompt, i * n, tokenizer, scores.get(prompt)).map((part) =>
        shape.choice(part, tokenizer),
      ),
    ),
    usage: usageOf(answers),
  };
}

async function stream(
  shape: Shape<unknown, unknown>,
  submission: Submission,
  body: CompletionRequest,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<undefined> {
  const n = body.n ?? 1;
  const { tokenizer, manifest } = submission.engine.model;
  const { prompts, generated, scored, all } = planOf(body, submission);
  const choices = prompts.map((prompt) =>
    Array.from({ length: n }, () => new StreamedChoice(prompt, tokenizer, body.diffusing ?? false)),
  );
  const send = (data: object | string) => {
    if (!reply.raw.destroyed)
      reply.raw.write(`data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
  };
  const usage = body.stream_options?.include_usage ? { usage: null } : {};
  const begun = new Set<number>();
  const chunk = (index: number, part: ReturnType<StreamedChoice["end"]>) => {
    const choice = shape.delta({ index, ...part }, tokenizer, !begun.has(index));
    begun.add(index);
    send({ ...start, choices: [choice], ...usage });
  };
  const handles = await submission.submitAll(all, (i, step, settled) => {
    if (i >= generated.length) return;
    // The samples of a ranked answer are known only at its end.
    if (ranked(body) !== undefined) return;
    const taken = choices[i]![step.sample]!.take(step, handles[i]!.spans[0]!.start, settled);
    // A slow reader may miss a whole text: the next chunk replaces it.
    const skipped = body.diffusing && reply.raw.writableLength > MOST_WAITING;
    if (taken && !skipped) chunk(i * n + step.sample, taken);
  });
  recordOf(request)?.add(...handles);
  const start = head(shape.prefix, shape.chunk, handles, manifest.name);
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
    send(shape.errorOf(failed(request, error)));
  }
  reply.raw.end();
}
