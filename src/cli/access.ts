/** Access settings from flags: exposed addresses, API keys and TLS, and their reload on SIGHUP. */

import { Server as TlsServer } from "node:https";
import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import { StartupError } from "../errors.ts";
import { KeyRing } from "../server/access/keys.ts";
import { isLoopback } from "../server/access/origins.ts";
import type { BaseOptions } from "../server/base.ts";
import { readTls } from "../server/listener/tls.ts";
import type { AccessConfig, ServeConfig } from "./options.ts";
import { createLogStream } from "./output/log-stream.ts";

/** The options of the two applications, and how to reload what they were read from. */
export interface AccessSetup {
  main: BaseOptions;
  admin: BaseOptions;
  /** Whether there is a key file or a certificate to reload. */
  reloads: boolean;
  /**
   * Reload keys and certificate. A file that cannot be used is logged as an error; the values in use stay.
   */
  reload(apps: readonly FastifyInstance[], log: FastifyBaseLogger): Promise<void>;
}

/** Read the key file and the certificate. Throws StartupError if one cannot be used. */
export async function readAccess(
  config: AccessConfig & Pick<ServeConfig, "logLevel" | "logFormat">,
): Promise<AccessSetup> {
  const { apiKeys, tlsCert, tlsKey, host, adminHost, allowOrigin: allowedOrigins } = config;
  const keys = apiKeys === undefined ? undefined : await KeyRing.open(apiKeys);
  const readFiles = () =>
    tlsCert === undefined || tlsKey === undefined ? undefined : readTls(tlsCert, tlsKey);
  const tls = await readFiles();
  const listener = {
    tls,
    maxHeaderBytes: config.maxHeaderKb * 1024,
    requestTimeoutMs: config.requestTimeout * 1000,
    maxConnections: config.maxConnections,
  };
  const common = {
    logger: { level: config.logLevel, stream: createLogStream(config.logFormat) },
    listener,
    maxBodyBytes: config.maxBodyKb * 1024,
    maxMessageBytes: config.maxMessageKb * 1024,
  };
  const adminIsLocal = isLoopback(adminHost);
  const reload: AccessSetup["reload"] = async (apps, log) => {
    const attempt = async (work: () => Promise<void>) => {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof StartupError)) throw error;
        log.error(`SIGHUP: ${error.message}; the values read before stay in use`);
      }
    };
    await attempt(async () => {
      if (!keys) return;
      const { added, revoked } = await keys.reload();
      log.info(`SIGHUP: ${keys.path} read again: ${keys.size} API keys, ${added} new, ${revoked} revoked`);
    });
    await attempt(async () => {
      const files = await readFiles();
      if (!files) return;
      // Open connections keep the certificate of their handshake.
      for (const { server } of apps) if (server instanceof TlsServer) server.setSecureContext({ ...files });
      log.info(`SIGHUP: ${tlsCert} read again: new connections get this certificate`);
    });
  };
  return {
    main: { ...common, access: { keys, allowedOrigins, loopback: isLoopback(host) } },
    // Only this machine can reach its loopback interface, so Prometheus needs no key there, and no
    // certificate.
    admin: {
      ...common,
      listener: adminIsLocal ? { ...listener, tls: undefined } : listener,
      access: { keys: adminIsLocal ? undefined : keys, loopback: adminIsLocal },
    },
    reloads: keys !== undefined || tls !== undefined,
    reload,
  };
}
