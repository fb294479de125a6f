/**
 * The connection to Redis, which may go away and come back at any time: commands then give nothing, at once, and whoever
 * asked does without.
 */

import { EventEmitter } from "node:events";
import type { Redis } from "ioredis";
import { StartupError } from "../errors.ts";

/** Milliseconds that a command may take: what is asked of Redis must be quicker than to do without. */
const COMMAND_MS = 250;
/** Milliseconds that the first connection may take before the server starts without. */
const CONNECT_MS = 2000;
/** Milliseconds between tries to reach a Redis that is away. */
const PROBE_MS = 1000;

/** Answers of a Redis that can do nothing for now: full, read-only, starting, or asking for another password. */
const AWAY =
  /^(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOREPLICAS|OOM|READONLY|TRYAGAIN|WRONGPASS)\b/;
/** Milliseconds between two reports of the same refusal. */
const REPORT_MS = 60_000;

/** An answer that is an error, with the command that it answers. */
interface ReplyError extends Error {
  command?: { name?: string };
}

/** Whether Redis is there but does not take this command, for a missing right or a key of another type, say. */
const isRefusal = (error: unknown): error is ReplyError =>
  error instanceof Error && error.name === "ReplyError" && !AWAY.test(error.message);

interface LinkEvents {
  /** It went away, and why; once until it comes back. */
  down: [reason: string];
  up: [];
  /** It does not take a command, and why; at most once a minute for each command. The connection stays up. */
  refused: [command: string, reason: string];
}

/** A connection that is kept up. */
export class RedisLink extends EventEmitter<LinkEvents> {
  #down: string | undefined = "not connected yet";
  #probe: NodeJS.Timeout | undefined;
  #closed = false;
  /** When the refusal of a command was last reported. */
  readonly #reported = new Map<string, number>();

  private constructor(
    readonly redis: Redis,
    /** Host and port, for people. */
    readonly address: string,
  ) {
    super();
    redis.on("ready", () => this.#rise());
    redis.on("close", () => this.#fall("the connection is closed"));
    // Without a listener an error would end the server; what it means is told by `close` and by commands.
    redis.on("error", (error: Error) => this.#fall(error.message));
  }

  /**
   * Connects. Resolves after two seconds without a connection, too: it is made as soon as Redis is there. Throws
   * StartupError if ioredis is not installed.
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
      // What cannot be said now is not said later: it would count twice, or too late.
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

  /** Why it is away; undefined while it answers. */
  get down(): string | undefined {
    return this.#down;
  }

  /** What a command gives; undefined if Redis is away, does not answer in time or refuses the command. Never rejects. */
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

  /** Ends the connection. */
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

  /** A Redis that hangs keeps its connection: only asking tells that it is back. */
  #probeLater(): void {
    clearTimeout(this.#probe);
    this.#probe = setTimeout(async () => {
      if (this.#closed || this.#down === undefined) return;
      try {
        // A write, since a Redis that is full still answers PING.
        await this.redis.set("didi:probe", "1", "PX", PROBE_MS);
        this.#rise();
      } catch (error) {
        // One that refuses the probe alone is there.
        if (isRefusal(error)) this.#rise();
        else this.#probeLater();
      }
    }, PROBE_MS);
    this.#probe.unref();
  }
}
