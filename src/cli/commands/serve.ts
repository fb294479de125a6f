/** `didi-serve serve`: run the server until a signal. */

import closeWithGrace from "close-with-grace";
import type { FastifyInstance } from "fastify";
import { StartupError } from "../../errors.ts";
import { keyFileWarning } from "../../server/access/key-file.ts";
import { checkOpenFiles, roomForConnections } from "../../server/listener/open-files.ts";
import { readAccess } from "../access.ts";
import { checkExposure } from "../check-flags.ts";
import { whenNpmEnds } from "../npm.ts";
import type { ServeConfig } from "../options.ts";
import { openShare } from "../share.ts";
import { startModels, warmUp, watchModels } from "../start-engine.ts";

const LISTEN_ERRORS: Record<string, string> = {
  EADDRINUSE: "the port is in use: choose another with",
  EACCES: "the port may not be used: choose one from 1024 up with",
  EADDRNOTAVAIL: "this machine does not have that address: choose another with",
  ENOTFOUND: "the host name is unknown: choose another with",
};

/**
 * Listen. Throws StartupError that names the wrong flag; `prefix` is "admin-" for --admin-host and
 * --admin-port.
 */
async function listen(app: FastifyInstance, host: string, port: number, prefix = ""): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    const flag = code === "EADDRNOTAVAIL" || code === "ENOTFOUND" ? "host" : "port";
    const why = LISTEN_ERRORS[code];
    throw new StartupError(
      `cannot listen on ${host}:${port}: ${why ? `${why} --${prefix}${flag}` : (error as Error).message}`,
    );
  }
}

/** Serve until a signal. Throws StartupError if the server cannot start. */
export async function serve(config: ServeConfig): Promise<void> {
  checkOpenFiles();
  checkExposure(config);
  const setup = await readAccess(config);
  console.error(`didi-serve: loading ${config.model[0]} …`);
  const { maxBatchTokens, maxActive, maxQueue } = config;
  const cache = { maxBytes: config.cacheMb * 1e6, ttlMs: config.cacheTtl * 1000 };
  const share = await openShare(config);
  const limits = { maxBatchTokens, maxActive, maxQueue, cache };
  // The modules of the server take as long to import as a worker to load the model: both at once.
  const [{ models, first }, { buildAdminApp, buildApp }, { createMetrics }] = await Promise.all([
    startModels(config, limits, share),
    import("../../server/app.ts"),
    import("../../server/telemetry/metrics.ts"),
  ]);
  const { pool, model } = first;
  const metrics = createMetrics(models, share?.up);
  const admin = config.adminPort === undefined ? undefined : await buildAdminApp(metrics, setup.admin);
  const { logPrompts } = config;
  const app = await buildApp(models, {
    ...setup.main,
    ...(share && { store: share.store }),
    metrics,
    logPrompts,
    adminElsewhere: admin !== undefined,
  });
  const apps = admin ? [app, admin] : [app];
  const measure = watchModels(models, app.log);
  share?.watch(app.log);
  // A frozen worker would not notice that the server has ended, so the server kills it.
  process.once("exit", () => models.kill());
  const stop = async () => {
    const limit = setTimeout(() => models.abort(), config.grace * 1000);
    await models.drain();
    clearTimeout(limit);
    await Promise.all(apps.map((each) => each.close()));
    share?.close();
    await models.close();
  };
  // SIGHUP reloads the files if there are any, and stops the server otherwise.
  const skip = setup.reloads ? (["SIGHUP"] as const) : [];
  if (setup.reloads) process.on("SIGHUP", () => void setup.reload(apps, app.log));
  let stopping = false;
  const { close } = closeWithGrace(
    { delay: config.grace * 1000 + 5000, logger: false, skip: [...skip] },
    async ({ err, signal, manual }) => {
      stopping = true;
      if (err) app.log.fatal({ err }, "stopping after a bug");
      else
        app.log.info(
          `${signal ?? (manual ? "npm ended" : "end")}: ` + `finishing ${models.running} running requests`,
        );
      await stop();
      app.log.info("stopped");
    },
  );
  whenNpmEnds(() => {
    if (!stopping) void close();
  });

  try {
    await listen(app, config.host, config.port);
    if (admin) await listen(admin, config.adminHost, config.adminPort!, "admin-");
  } catch (error) {
    await Promise.all(apps.map((each) => each.close()));
    share?.close();
    await models.close();
    throw error;
  }
  // Keep the descriptors free that a replaced worker needs.
  const most = app.server.maxConnections ?? Number.POSITIVE_INFINITY;
  app.server.maxConnections = Math.min(most, roomForConnections() ?? most);
  await warmUp(first);
  if (pool.provider === "cuda" && config.split !== "auto" && config.split > 1)
    app.log.warn("--split does nothing on CUDA, which runs a batch whole");
  if (pool.fallback) app.log.warn(`running on the CPU: ${pool.fallback}`);
  const { provider } = pool;
  app.log.info(`precision ${model.precision[provider]}: ${model.precisionReason[provider]}`);
  const writers = config.apiKeys === undefined ? undefined : await keyFileWarning(config.apiKeys);
  if (writers) app.log.warn(writers);
  const address = app.listeningOrigin;
  const key = config.apiKeys === undefined ? "" : " -H 'authorization: Bearer KEY'";
  const where = admin ? `; /metrics and /docs at ${admin.listeningOrigin}` : "";
  const others = models.models.slice(1).map(({ name }) => `, ${name} on demand`);
  const served = `${model.manifest.name} (${model.precision[provider]}) on ${provider}${others.join("")}${where}`;
  console.log(`didi-serve: ${served}, ready at ${address}

  curl -s ${address}/generate${key} -H 'content-type: application/json' \\
    -d '{"prompt": "Once upon a time", "length": 64, "steps": 32}'
`);
  await measure(first);
}
