/** /generate: answer with the finished text, or with every step as server-sent events. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { invalid } from "../../errors.ts";
import type { Admission, Submission } from "../access/admission.ts";
import { parseJson } from "../json.ts";
import { type Schemas, valid, validator } from "../openapi.ts";
import { schemaOf } from "../route-schema.ts";
import { cancelOnClose, closing } from "../streaming/cancellation.ts";
import { Outbox } from "../streaming/outbox.ts";
import { EventStream, type Progress, parseLastEventId, wantsEvents } from "../streaming/sse.ts";
import { failed, recordOf } from "../telemetry/record.ts";

type Body = Schemas["GenerateRequest"];

interface Route {
  Body: Body;
  Querystring: Record<string, string | string[]>;
  Reply: Schemas["GenerateResponse"] | undefined;
}
type Request = FastifyRequest<Route>;

export async function generateRoute(app: FastifyInstance, { admission }: { admission: Admission }) {
  const answer = async (body: Body, request: Request, reply: FastifyReply) => {
    const seen = progressOf(request, body);
    return admission.use(request, body.model, closing(reply.raw), async (submission) => {
      if (wantsEvents(request)) return stream(submission, body, seen, request, reply);
      const handle = await submission.submit(body);
      recordOf(request)?.add(handle);
      cancelOnClose(reply.raw, [handle]);
      return handle.result;
    });
  };
  app.post<Route>("/generate", { schema: schemaOf("generate") }, async (request, reply) =>
    answer(request.body, request, reply),
  );
  // The EventSource of browsers sends nothing but GET, and sends it again when the answer ends.
  app.get<Route>(
    "/generate",
    { schema: schemaOf("generateByUrl"), config: { access: "costly" } },
    async (request, reply) => {
      const body = bodyOf(request.query);
      if (progressOf(request, body)?.ended) return reply.code(204).send(undefined);
      return answer(body, request, reply);
    },
  );
}

/** Return the events that the client has received. Throws what `parseLastEventId` throws. */
function progressOf({ headers }: FastifyRequest, { seed }: Body): Progress | undefined {
  const header = headers["last-event-id"];
  return header === undefined ? undefined : parseLastEventId(String(header), seed);
}

const validBody = validator("GenerateRequest");

/** Return the request that a URL holds as JSON. Throws InvalidRequestError. */
function bodyOf({ request, ...others }: Route["Querystring"]): Body {
  const [other] = Object.keys(others);
  if (other !== undefined)
    throw invalid(
      `/query/${other}`,
      "is not a parameter of this route: put the fields into request, as JSON",
    );
  if (typeof request !== "string")
    throw invalid("/query/request", 'must be given once, as JSON: ?request={"prompt":"Once upon a time"}');
  try {
    return valid(validBody(parseJson(Buffer.from(request))));
  } catch (error) {
    if (error instanceof SyntaxError) throw invalid("/query/request", `is not JSON: ${error.message}`);
    throw error;
  }
}

/**
 * Answer with the events after those the client has received. Errors of `submit` are thrown before anything
 * is sent.
 */
async function stream(
  submission: Submission,
  body: Body,
  received: Progress | undefined,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<undefined> {
  // A deadline skips steps by the clock, so that a repeated request may have other steps.
  const resumable = body.deadline_ms === undefined;
  const seen = resumable ? received : undefined;
  const seeded = { ...body, seed: seen?.seed ?? body.seed };
  const handle = await submission.submit(seeded, (step) => {
    if (step.step > (seen?.steps[step.sample] ?? 0)) outbox.send({ type: "step", id, ...step });
  });
  recordOf(request)?.add(handle);
  const { id, seed, spans } = handle;
  reply.hijack();
  cancelOnClose(reply.raw, [handle]);
  const progress = seen ?? { seed, steps: [] };
  const outbox = new Outbox(new EventStream(reply.raw, progress, resumable, reply.getHeaders()));
  if (!seen) outbox.send({ type: "accepted", id, seed, spans });
  try {
    outbox.send({ type: "done", ...(await handle.result) });
  } catch (error) {
    outbox.send({ type: "error", id, error: failed(request, error) });
  }
  reply.raw.end();
}
