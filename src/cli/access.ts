/** From flags to what the server takes from whom: whether it may listen, its keys, its TLS, and both of them read again. */

import { Server as TlsServer } from "node:https";
import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import { StartupError } from "../errors.ts";
import { KeyRing } from "../server/access/keys.ts";
import { isLoopback } from "../server/access/origins.ts";
import type { BaseOptions } from "../server/base.ts";
import { readTls } from "../server/listener/tls.ts";
import { createLogStream } from "./log-stream.ts";
import type { AccessConfig } from "./options.ts";

/** What the applications are built with, and how it is renewed. */
export interface AccessSetup {
  main: BaseOptions;
  admin: BaseOptions;
  /** Whether there is a file to read again. */
  reloads: boolean;
  /** Reads them again. What cannot be used is one error in the log, and what was there before goes on. */
  reload(apps: readonly FastifyInstance[], log: FastifyBaseLogger): Promise<void>;
}

/** Reads the files. Throws StartupError if one cannot be used. */
export async function readAccess(config: AccessConfig & { logLevel: string }): Promise<AccessSetup> {
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
    logger: { level: config.logLevel, stream: createLogStream() },
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
        log.error(`SIGHUP: ${error.message}; what was read before goes on`);
      }
    };
    await attempt(async () => {
      if (!keys) return;
      const { added, revoked } = await keys.reload();
      log.info(`SIGHUP: ${keys.size} API keys, ${added} of them new; ${revoked} revoked`);
    });
    await attempt(async () => {
      const files = await readFiles();
      if (!files) return;
      // Connections that are open keep the certificate that they have seen.
      for (const { server } of apps) if (server instanceof TlsServer) server.setSecureContext({ ...files });
      log.info(`SIGHUP: the certificate of ${tlsCert} is in use`);
    });
  };
  return {
    main: { ...common, access: { keys, allowedOrigins, loopback: isLoopback(host) } },
    // Who can reach this machine's own interface is on it; Prometheus there needs no key.
    // And it speaks plain HTTP, so that Prometheus needs to trust no certificate.
    admin: {
      ...common,
      listener: adminIsLocal ? { ...listener, tls: undefined } : listener,
      access: { keys: adminIsLocal ? undefined : keys, loopback: adminIsLocal },
    },
    reloads: keys !== undefined || tls !== undefined,
    reload,
  };
}
