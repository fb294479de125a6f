/** Applications over a test engine, closed after the tests, and a WebSocket client that stores its events. */

import { type IncomingMessage, request } from "node:http";
import { after } from "node:test";
import type { FastifyInstance } from "fastify";
import { type ClientOptions, WebSocket } from "ws";
import type { Engine } from "../../src/engine/engine.ts";
import { ModelRegistry } from "../../src/engine/models/registry.ts";
import { type AppOptions, buildApp } from "../../src/server/app.ts";
import type { Schemas } from "../../src/server/openapi.ts";
import { openEngine } from "../support/engine.ts";

export type ServerEvent = Schemas["ServerEvent"];

/**
 * Build an application over models, or over one engine, that is closed after the file's tests, or after the
 * test that builds it.
 */
export async function build(served: Engine | ModelRegistry, options?: AppOptions): Promise<FastifyInstance> {
  const models = served instanceof ModelRegistry ? served : new ModelRegistry(served);
  const app = await buildApp(models, options);
  after(() => app.close());
  return app;
}

/** Return the number of open connections. */
export const connections = ({ server }: FastifyInstance): Promise<number> =>
  new Promise((resolve) => server.getConnections((_, count) => resolve(count)));

/** Build an application as above, and listen on a free loopback port. */
export async function listen(
  served: Engine | ModelRegistry,
  options?: AppOptions,
): Promise<{ app: FastifyInstance; origin: string }> {
  const app = await build(served, options);
  await app.listen({ host: "127.0.0.1", port: 0 });
  return { app, origin: app.listeningOrigin };
}

/**
 * Start an engine as `startEngine` does and a listening application over it. Both are closed after the file's
 * tests, or after the test that starts them.
 */
export async function serve(
  limits: Parameters<typeof openEngine>[0] = {},
  model?: string,
  options?: AppOptions,
): Promise<{ engine: Engine; app: FastifyInstance; origin: string }> {
  const engine = await openEngine(limits, model);
  const app = await buildApp(new ModelRegistry(engine), options);
  after(async () => {
    await app.close();
    await engine.pool.close();
  });
  await app.listen({ host: "127.0.0.1", port: 0 });
  return { engine, app, origin: app.listeningOrigin };
}

/** Post JSON and resolve with the head of the answer; the body is not read. */
export function postRaw(
  origin: string,
  path: string,
  body: object,
  headers: Record<string, string> = {},
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const options = { method: "POST", headers: { "content-type": "application/json", ...headers } };
    request(`${origin}${path}`, options, resolve).on("error", reject).end(JSON.stringify(body));
  });
}

/** A socket to /generate/stream. */
export class StreamClient {
  readonly events: ServerEvent[] = [];
  readonly closed: Promise<number>;
  #waiters: (() => void)[] = [];

  private constructor(readonly socket: WebSocket) {
    socket.on("message", (data) => {
      this.events.push(JSON.parse(data.toString()));
      for (const wake of this.#waiters.splice(0)) wake();
    });
    this.closed = new Promise((resolve) => socket.once("close", resolve));
  }

  static async connect(origin: string, options: ClientOptions = {}): Promise<StreamClient> {
    const socket = new WebSocket(`${origin.replace("http", "ws")}/generate/stream`, options);
    const client = new StreamClient(socket);
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
    return client;
  }

  send(message: unknown): void {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  /** The first event that fits, past or future. */
  async find<E extends ServerEvent>(fits: (event: ServerEvent) => event is E): Promise<E> {
    for (;;) {
      const event = this.events.find(fits);
      if (event) return event;
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
  }

  /** Wait for the end of a request: its `done` or `error` event. */
  end(id: string): Promise<Schemas["DoneEvent"] | Schemas["ErrorEvent"]> {
    return this.find(
      (event): event is Schemas["DoneEvent"] | Schemas["ErrorEvent"] =>
        (event.type === "done" || event.type === "error") && event.id === id,
    );
  }

  /** Return the steps of a request so far. */
  steps(id: string): Schemas["StepEvent"][] {
    return this.events.filter(
      (event): event is Schemas["StepEvent"] => event.type === "step" && event.id === id,
    );
  }
}
