/** Metrics of requests: how many, how long, and why some were refused. */

import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { ProblemKind } from "../problem.ts";
import type { RequestRecord, TelemetrySink } from "./record.ts";

/** Problems that are no refusal: the request was taken. */
const TAKEN: readonly ProblemKind[] = ["cancelled", "internal", "model-failure"];

/** Registers them; what it returns keeps them up to date. `buckets` are in seconds. */
export function requestMetrics(registry: Registry, buckets: number[]): TelemetrySink {
  const registers = [registry];
  const requests = new Counter({
    name: "didi_http_requests_total",
    help: "HTTP requests that were answered, by route, method and status; a WebSocket counts when it closes",
    labelNames: ["route", "method", "status"],
    registers,
  });
  const seconds = new Histogram({
    name: "didi_http_request_seconds",
    help: "Time from a request's head to the end of its answer, WebSockets left out",
    labelNames: ["route"],
    buckets,
    registers,
  });
  const sockets = new Gauge({ name: "didi_open_sockets", help: "WebSockets that are open", registers });
  const rejections = new Counter({
    name: "didi_rejections_total",
    help: "Requests, and messages of WebSockets, that were refused, by the kind of problem they were answered with",
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
      if (problem && !TAKEN.includes(problem)) rejections.inc({ reason: problem });
      if (parent) return;
      requests.inc({ route, method, status });
      if (socket) sockets.dec();
      else seconds.observe({ route }, record.totalMs / 1000);
    },
  };
}
