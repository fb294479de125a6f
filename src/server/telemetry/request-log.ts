/** One log line for each request and each WebSocket message, without prompts and texts. */

import type { RequestRecord, TelemetrySink } from "./record.ts";

const round = (ms: number) => Math.round(ms * 100) / 100;

/** Summarise the answers of a request: sums of tokens and passes, maxima of steps and times. */
export function summary({ answers }: RequestRecord) {
  const most = (values: number[]) => Math.max(...values);
  const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
  const usage = answers.map((answer) => answer.usage);
  const reasons = answers.flatMap(({ samples }) => samples.map((sample) => sample.finish_reason));
  return {
    steps: most(usage.map(({ steps }) => steps)),
    prompt_tokens: sum(usage.map(({ prompt_tokens }) => prompt_tokens)),
    tokens: sum(usage.map(({ completion_tokens }) => completion_tokens)),
    passes: {
      student: sum(usage.map(({ student_passes }) => student_passes)),
      discriminator: sum(usage.map(({ discriminator_passes }) => discriminator_passes)),
      gradient: sum(usage.map(({ gradient_passes }) => gradient_passes)),
    },
    finish_reason: [...new Set(reasons)].toSorted().join(),
    cache: [...new Set(answers.map(({ cache }) => cache))].toSorted().join(),
    queue_ms: round(most(answers.map(({ timing }) => timing.queue_ms))),
    compute_ms: round(sum(answers.map(({ timing }) => timing.compute_ms))),
  };
}

/** Routes that probes ask every few seconds. */
const PROBES: ReadonlySet<string> = new Set(["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"]);

/** Writes the lines with the id of the request. */
export const requestLog: TelemetrySink = {
  end(record) {
    const { ids, route, path, status, problem, traceId, answers, parent, request } = record;
    const { method, key, log } = request;
    log[PROBES.has(route) ? "debug" : "info"](
      {
        ...(ids.length > 0 && { id: ids.join() }),
        method,
        route,
        path,
        status,
        ...(key && { key: key.id }),
        ...(problem && { problem }),
        ...(answers.length > 0 && summary(record)),
        total_ms: round(record.totalMs),
        ...(traceId && { trace_id: traceId }),
      },
      parent ? "message" : "request",
    );
  },
};
