/** `didi-serve serve`: the server as a process. */

import closeWithGrace from "close-with-grace";
import type { ServeConfig } from "../config.ts";
import { StartupError } from "../errors.ts";
import { buildApp } from "../http/app.ts";
import { createLogStream } from "./log-stream.ts";
import { checkOpenFiles, roomForConnections } from "./open-files.ts";
import { startEngine, warmUp } from "./start-engine.ts";

const LISTEN_ERRORS: Record<string, string> = {
  EADDRINUSE: "the port is in use: choose another with --port",
  EACCES: "the port may not be used: choose one from 1024 up with --port",
  EADDRNOTAVAIL: "this machine does not have that address: choose another with --host",
  ENOTFOUND: "the host name is unknown: choose another with --host",
};

/** Serves until a signal. Throws StartupError when it cannot start. */
export async function serve(config: ServeConfig): Promise<void> {
  checkOpenFiles();
  const { maxBatchTokens, maxActive, maxQueue } = config;
  const cache = { maxBytes: config.cacheMb * 1e6, ttlMs: config.cacheTtl * 1000 };
  const engine = await startEngine(config, { maxBatchTokens, maxActive, maxQueue, cache }, config.runtimes);
  const { runtime, model } = engine;
  const app = await buildApp(engine, { logger: { level: config.logLevel, stream: createLogStream() } });
  runtime.on("restart", ({ pid, code, signal, reason }) =>
    app.log.error(
      { runtimePid: pid, code, signal },
      `runtime process died (${reason ?? signal ?? code}), starting another`,
    ),
  );
  runtime.on("replaced", ({ pid, previous, milliseconds }) =>
    app.log.warn({ runtimePid: pid, previousPid: previous, ms: milliseconds }, "runtime process replaced"),
  );
  runtime.on("load-failed", (message) => app.log.error(`runtime process cannot load the model: ${message}`));

  // However this process ends: one that is frozen would not see that its server is gone.
  process.once("exit", () => runtime.kill());
  const stop = async () => {
    const limit = setTimeout(() => engine.abort(), config.grace * 1000);
    await engine.drain();
    clearTimeout(limit);
    await app.close();
    await runtime.close();
  };
  closeWithGrace({ delay: config.grace * 1000 + 5000, logger: false }, async ({ err, signal }) => {
    if (err) app.log.fatal({ err }, "stopping after a bug");
    else
      app.log.info(
        `${signal ?? "end"}: finishing ${engine.activeRows + engine.queueLength} running generations`,
      );
    await stop();
  });

  try {
    await app.listen({ host: config.host, port: config.port });
  } catch (error) {
    await runtime.close();
    const code = (error as NodeJS.ErrnoException).code ?? "";
    throw new StartupError(
      `cannot listen on ${config.host}:${config.port}: ${LISTEN_ERRORS[code] ?? (error as Error).message}`,
    );
  }
  // More would take the descriptors that a runtime process needs which is replaced.
  const most = app.server.maxConnections ?? Number.POSITIVE_INFINITY;
  app.server.maxConnections = Math.min(most, roomForConnections() ?? most);
  await warmUp(engine);
  if (runtime.fallback) app.log.warn(`CUDA does not load, running on the CPU: ${runtime.fallback}`);
  const address = app.listeningOrigin;
  console.log(`didi-serve: ${model.manifest.name} (${model.precision[runtime.provider]}) on ${runtime.provider}, ${engine.batchTokens} tokens a call, ready at ${address}

  curl -s ${address}/generate -H 'content-type: application/json' \\
    -d '{"prompt": "Once upon a time", "length": 64, "steps": 16}'
`);
}
