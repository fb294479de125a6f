/** POST /generate: answer with the finished text, or with every step as server-sent events. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Admission } from "../access/admission.ts";
import type { Schemas } from "../openapi.ts";
import { toProblem } from "../problem.ts";
import { schemaOf } from "../route-schema.ts";
import { cancelOnClose } from "../streaming/cancellation.ts";
import { Outbox } from "../streaming/outbox.ts";
import { EventStream, type Progress, parseLastEventId, wantsEvents } from "../streaming/sse.ts";
import { recordOf } from "../telemetry/record.ts";

type Body = Schemas["GenerateRequest"];

export async function generateRoute(app: FastifyInstance, { admission }: { admission: Admission }) {
  interface Route {
    Body: Body;
    Reply: Schemas["GenerateResponse"];
  }
  app.post<Route>("/generate", { schema: schemaOf("generate") }, async (request, reply) => {
    const { body } = request;
    const header = request.headers["last-event-id"];
    const seen = header === undefined ? undefined : parseLastEventId(String(header), body.seed);
    if (wantsEvents(request)) return stream(admission, body, seen, request, reply);
    const handle = await admission.submit(request, body);
    recordOf(request)?.add(handle);
    cancelOnClose(reply.raw, [handle]);
    return handle.result;
  });
}

/**
 * Answer with the events after those the client has received. Errors of `submit` are thrown before anything
 * is sent.
 */
async function stream(
  admission: Admission,
  body: Body,
  received: Progress | undefined,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<undefined> {
  // A deadline skips steps by the clock, so that a repeated request may have other steps.
  const resumable = body.deadline_ms === undefined;
  const seen = resumable ? received : undefined;
  const seeded = { ...body, seed: seen?.seed ?? body.seed };
  const handle = await admission.submit(request, seeded, (step) => {
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
    const { problem, bug } = toProblem(error);
    if (bug) request.log.error({ err: error }, "request failed");
    recordOf(request)?.fail(problem);
    outbox.send({ type: "error", id, error: { ...problem, request_id: request.id } });
  }
  reply.raw.end();
}
