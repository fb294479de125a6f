/**
 * OpenTelemetry traces, if `@opentelemetry/api` is installed and an SDK was registered before the server
 * started: a span for each request, and one for each batch, linked to the requests of its rows.
 */

import type * as Api from "@opentelemetry/api";
import type { Engine } from "../../engine/engine.ts";
import type { ModelRegistry } from "../../engine/models/registry.ts";
import type { BatchReport } from "../../engine/scheduling/dispatcher.ts";
import { VERSION } from "../openapi.ts";
import type { RequestRecord, TelemetrySink } from "./record.ts";
import { summary } from "./request-log.ts";

/** Return the API; undefined if it is not installed. */
export async function loadTracing(
  load: () => Promise<typeof Api> = () => import("@opentelemetry/api"),
): Promise<typeof Api | undefined> {
  try {
    return await load();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_MODULE_NOT_FOUND") return undefined;
    throw error;
  }
}

/** Create spans of requests and batches. Without a registered SDK there are none. */
export function createTracing(api: typeof Api, models: ModelRegistry): TelemetrySink {
  const { SpanKind, SpanStatusCode, context, propagation, trace } = api;
  const tracer = trace.getTracer("didi-serve", VERSION);
  const spans = new Map<RequestRecord, Api.Span>();
  /** Spans of HTTP requests by the ids of their accepted requests, for the links of batches. */
  const bySubscriber = new Map<string, Api.SpanContext>();

  /** The model of every request, if there is one. */
  const only = models.models.length === 1 ? models.models[0]!.name : undefined;

  /** Return the parent of a request's span: its socket, an active span, or the client's trace context. */
  function parentOf({ parent, request }: RequestRecord): Api.Context {
    const socket = parent && spans.get(parent);
    if (socket) return trace.setSpan(api.ROOT_CONTEXT, socket);
    const active = context.active();
    return trace.getSpan(active) ? active : propagation.extract(active, request.headers);
  }

  const watch = (engine: Engine) => engine.on("batch", spanOf);
  for (const engine of models.engines) watch(engine);
  models.on("engine", watch);

  function spanOf(report: BatchReport): void {
    const links = linksOf(report, bySubscriber);
    if (links.length === 0) return;
    const span = tracer.startSpan(
      `step ${report.graph}`,
      {
        kind: SpanKind.INTERNAL,
        root: true,
        links,
        startTime: performance.timeOrigin + report.sentAt,
        attributes: {
          "didi.graph": report.graph,
          "didi.batch.rows": report.rows,
          "didi.batch.tokens": report.paddedTokens,
          "didi.batch.tokens_limit": report.maxTokens,
          "didi.batch.draws": report.draws,
          "didi.batch.graph_ms": report.milliseconds,
        },
      },
      api.ROOT_CONTEXT,
    );
    span.end(performance.timeOrigin + report.answeredAt);
  }

  return {
    begin(record) {
      const { route, path, parent } = record;
      const { method } = record.request;
      const span = tracer.startSpan(
        parent ? "message" : `${method} ${route}`,
        {
          kind: parent ? SpanKind.INTERNAL : SpanKind.SERVER,
          attributes: {
            "http.request.method": method,
            "http.route": route,
            "url.path": path,
            ...(only && { "gen_ai.request.model": only }),
          },
        },
        parentOf(record),
      );
      if (!span.isRecording()) return;
      spans.set(record, span);
      record.traceId = span.spanContext().traceId;
    },
    accepted(record, { id }) {
      const span = spans.get(record);
      if (span) bySubscriber.set(id, span.spanContext());
    },
    end(record) {
      const span = spans.get(record);
      if (!span) return;
      spans.delete(record);
      for (const id of record.ids) bySubscriber.delete(id);
      span.setAttributes(attributesOf(record));
      if (record.status >= 500)
        span.setStatus({ code: SpanStatusCode.ERROR, ...(record.problem && { message: record.problem }) });
      span.end();
    },
  };
}

function linksOf({ groups }: BatchReport, spans: ReadonlyMap<string, Api.SpanContext>): Api.Link[] {
  if (spans.size === 0) return [];
  const contexts = [...groups].flatMap(({ requestIds }) => requestIds.flatMap((id) => spans.get(id) ?? []));
  // One HTTP request may have several rows in a batch.
  return [...new Set(contexts)].map((context) => ({ context }));
}

/** Return the attributes of a finished request, with OpenTelemetry's names where there are any. */
function attributesOf(record: RequestRecord): Api.Attributes {
  const { ids, status, problem, answers } = record;
  const attributes: Api.Attributes = {
    "http.response.status_code": status,
    ...(problem && { "error.type": problem }),
    ...(ids.length > 0 && { "gen_ai.response.id": ids.join() }),
  };
  if (answers.length === 0) return attributes;
  const { steps, prompt_tokens, tokens, passes, finish_reason, cache, queue_ms, compute_ms } =
    summary(record);
  return {
    ...attributes,
    "gen_ai.response.model": answers[0]!.model,
    "gen_ai.usage.input_tokens": prompt_tokens,
    "gen_ai.usage.output_tokens": tokens,
    "gen_ai.response.finish_reasons": finish_reason.split(","),
    "didi.steps": steps,
    "didi.passes.student": passes.student,
    "didi.passes.discriminator": passes.discriminator,
    "didi.passes.gradient": passes.gradient,
    "didi.cache": cache,
    "didi.queue_ms": queue_ms,
    "didi.compute_ms": compute_ms,
  };
}
