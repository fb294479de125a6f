/**
 * The connection to Redis. While Redis is unavailable, commands return undefined at once and callers go on
 * without it.
 */

import { EventEmitter } from "node:events";
import type { Redis } from "ioredis";
import { StartupError } from "../errors.ts";

/** Milliseconds that a command may take: longer waits cost more than going on without Redis. */
const COMMAND_MS = 250;
/** Milliseconds that the first connection may take before the server starts without it. */
const CONNECT_MS = 2000;
/** Milliseconds between attempts to reach an unavailable Redis. */
const PROBE_MS = 1000;

/** Errors of a Redis that cannot serve for now: full, read-only, starting, or with another password. */
const UNAVAILABLE =
  /^(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOREPLICAS|OOM|READONLY|TRYAGAIN|WRONGPASS)\b/;
/** Milliseconds between reports of the same refused command. */
const REPORT_MS = 60_000;

/** An error that Redis returned, with its command. */
interface ReplyError extends Error {
  command?: { name?: string };
}

/** Return true if Redis is available but refuses this command, such as for a missing permission. */
const isRefusal = (error: unknown): error is ReplyError =>
  error instanceof Error && error.name === "ReplyError" && !UNAVAILABLE.test(error.message);

interface LinkEvents {
  /** It became unavailable, with the reason; once until it is back. */
  down: [reason: string];
  up: [];
  /**
   * It refused a command, with the reason; at most once a minute for each command. The connection stays up.
   */
  refused: [command: string, reason: string];
}

/** A connection that reconnects by itself. */
export class RedisLink extends EventEmitter<LinkEvents> {
  #down: string | undefined = "not connected yet";
  #probe: NodeJS.Timeout | undefined;
  #closed = false;
  /** `performance.now()` of the last report of each refused command. */
  readonly #reported = new Map<string, number>();

  private constructor(
    readonly redis: Redis,
    /** Host and port, for messages. */
    readonly address: string,
  ) {
    super();
    redis.on("ready", () => this.#rise());
    redis.on("close", () => this.#fall("the connection is closed"));
    // An error without a listener would end the server.
    redis.on("error", (error: Error) => this.#fall(error.message));
  }

  /**
   * Connect. Resolves after two seconds even without a connection, which is then made once Redis is
   * available. Throws StartupError if ioredis is not installed.
   */
  static async open(url: string): Promise<RedisLink> {
    const module = await import("ioredis").catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
      throw new StartupError(
        "--redis needs the package ioredis: install with `npm ci`, without --omit=optional",
      );
    });
    const redis = new module.Redis(url, {
      commandTimeout: COMMAND_MS,
      connectTimeout: CONNECT_MS,
      // A command that cannot be sent now must not be sent later: it would count twice or too late.
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      retryStrategy: () => PROBE_MS,
      connectionName: "didi-serve",
    });
    const link = new RedisLink(redis, new URL(url).host || new URL(url).pathname);
    await new Promise<void>((resolve) => {
      const late = setTimeout(resolve, CONNECT_MS);
      link.once("up", () => {
        clearTimeout(late);
        resolve();
      });
    });
    return link;
  }

  /** Why Redis is unavailable; undefined while it answers. */
  get down(): string | undefined {
    return this.#down;
  }

  /**
   * Return the result of a command; undefined if Redis is unavailable, too slow or refuses it. Never rejects.
   */
  async run<T>(command: (redis: Redis) => Promise<T>): Promise<T | undefined> {
    if (this.#down !== undefined) return undefined;
    try {
      return await command(this.redis);
    } catch (error) {
      if (isRefusal(error)) this.#refused(error);
      else this.#fall((error as Error).message);
      return undefined;
    }
  }

  /** Close the connection. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#probe);
    this.redis.disconnect();
  }

  #refused({ command, message }: ReplyError): void {
    const name = (command?.name ?? "a command").toUpperCase();
    const last = this.#reported.get(name);
    if (last !== undefined && performance.now() - last < REPORT_MS) return;
    this.#reported.set(name, performance.now());
    this.emit("refused", name, message);
  }

  #rise(): void {
    if (this.#closed || this.#down === undefined) return;
    this.#down = undefined;
    clearTimeout(this.#probe);
    this.emit("up");
  }

  #fall(reason: string): void {
    if (this.#closed || this.#down !== undefined) return;
    this.#down = reason;
    this.emit("down", reason);
    this.#probeLater();
  }

  /** A Redis that hangs keeps its connection, so only a command shows that it is back. */
  #probeLater(): void {
    clearTimeout(this.#probe);
    this.#probe = setTimeout(async () => {
      if (this.#closed || this.#down === undefined) return;
      try {
        // A write, since a full Redis still answers PING.
        await this.redis.set("didi:probe", "1", "PX", PROBE_MS);
        this.#rise();
      } catch (error) {
        // A Redis that only refuses the probe is available.
        if (isRefusal(error)) this.#rise();
        else this.#probeLater();
      }
    }, PROBE_MS);
    this.#probe.unref();
  }
}
