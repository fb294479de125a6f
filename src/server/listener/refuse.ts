/** Answer a request that failed: in the shape of its API, with the headers that the error needs. */

import type { FastifyReply, FastifyRequest } from "fastify";
import { MethodNotAllowedError, NotFoundError, UnauthorizedError } from "../../errors.ts";
import { methodsOf, routesLike } from "../openapi.ts";
import type { Problem } from "../problem.ts";
import { endRefusedUpgrade } from "../streaming/websocket.ts";
import { failed } from "../telemetry/record.ts";

/** Return an error handler that answers every error in one shape and writes bugs to the log. */
export function sendAs(shape: (problem: Problem) => object, contentType = "application/json; charset=utf-8") {
  return (error: unknown, request: FastifyRequest, reply: FastifyReply): void => {
    endRefusedUpgrade(request.raw, reply.raw);
    const problem = failed(request, error);
    if (problem.retry_after !== undefined) reply.header("retry-after", problem.retry_after);
    if (error instanceof UnauthorizedError)
      reply.header(
        "www-authenticate",
        `Bearer realm="didi-serve"${error.refused ? ', error="invalid_token"' : ""}`,
      );
    if (error instanceof MethodNotAllowedError) reply.header("allow", error.allowed.join(", "));
    reply.header("x-request-id", request.id).code(problem.status).type(contentType);
    reply.send(shape(problem));
  };
}

/** Throw NotFoundError or MethodNotAllowedError for a request that matches no route. */
export function noRoute({ method, url }: { method: string; url: string }): never {
  const path = url.split("?")[0]!;
  const allowed = methodsOf(path);
  if (allowed.length === 0)
    throw new NotFoundError(
      `${method} ${path} is not a route: there is ${routesLike(path).join(", ")} (see /openapi.yaml)`,
    );
  if (allowed.includes(method))
    throw new NotFoundError(`${path} is served on another port: see --admin-port`);
  throw new MethodNotAllowedError(`${path} allows ${allowed.join(" or ")}, not ${method}`, allowed);
}
