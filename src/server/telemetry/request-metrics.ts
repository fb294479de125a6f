/** Metrics of requests: counts, times and rejections. */

import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { ProblemKind } from "../problem.ts";
import type { RequestRecord, TelemetrySink } from "./record.ts";

/** Problems of requests that had been accepted; they are not rejections. */
const ACCEPTED: readonly ProblemKind[] = ["cancelled", "internal", "model-failure"];

/** Register the metrics and return the sink that updates them. `buckets` are in seconds. */
export function requestMetrics(registry: Registry, buckets: number[]): TelemetrySink {
  const registers = [registry];
  const requests = new Counter({
    name: "didi_http_requests_total",
    help: "HTTP requests by route, method and status; a WebSocket counts when it closes",
    labelNames: ["route", "method", "status"],
    registers,
  });
  const seconds = new Histogram({
    name: "didi_http_request_seconds",
    help: "Time from the headers of a request to the end of its answer, without WebSockets",
    labelNames: ["route"],
    buckets,
    registers,
  });
  const sockets = new Gauge({ name: "didi_open_sockets", help: "Open WebSockets", registers });
  const rejections = new Counter({
    name: "didi_rejections_total",
    help: "Refused requests and WebSocket messages by the kind of problem",
    labelNames: ["reason"],
    registers,
  });
  for (const reason of ["overloaded", "unavailable"]) rejections.inc({ reason }, 0);
  return {
    begin({ socket, parent }) {
      if (socket && !parent) sockets.inc();
    },
    end(record: RequestRecord) {
      const { route, status, problem, parent, socket } = record;
      const { method } = record.request;
      if (problem && !ACCEPTED.includes(problem)) rejections.inc({ reason: problem });
      if (parent) return;
      requests.inc({ route, method, status });
      if (socket) sockets.dec();
      else seconds.observe({ route }, record.totalMs / 1000);
    },
  };
}
