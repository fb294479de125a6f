/** Sends raw bytes and looks at what comes back. */

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { FrameCase } from "./frames.ts";
import type { RawCase } from "./requests.ts";

/** What came back: the statuses, in order; `hung` if something had to come and did not. */
export interface Reply {
  statuses: number[];
  hung: boolean;
  /** The beginning of an answer that is a fault of the server. */
  text: string;
}

/** A case that takes longer hangs. */
const HUNG_MS = 20_000;
/** Silence after which a request that is not whole is taken to be all that was meant. */
const SILENCE_MS = 80;

/** Bytes of a request that the server reads to its end. */
const LARGEST = 1 << 20;

const STATUS = /^HTTP\/1\.1 (\d{3})/;

/** Bytes of the first whole answer in `data`; 0 if it is not all there, -1 if it ends with the connection. */
function answerLength(data: Buffer): number {
  const headEnd = data.indexOf("\r\n\r\n");
  if (headEnd < 0) return 0;
  const head = data.subarray(0, headEnd).toString("latin1").toLowerCase();
  const length = /\r\ncontent-length: (\d+)/.exec(head);
  if (length) {
    const size = headEnd + 4 + Number(length[1]);
    return data.length >= size ? size : 0;
  }
  if (head.includes("\r\ntransfer-encoding: chunked")) {
    const end = data.indexOf("\r\n0\r\n\r\n", headEnd + 2);
    return end < 0 ? 0 : end + 7;
  }
  return -1;
}

async function open(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: false });
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/** A connection that is used again as long as the server keeps it. */
export class Sender {
  #kept: Socket | undefined;

  constructor(readonly port: number) {}

  /** Sends a request. */
  async request({ bytes, whole }: RawCase): Promise<Reply> {
    const socket = (whole ? this.#kept : undefined) ?? (await open(this.port));
    this.#kept = undefined;
    socket.write(bytes);
    let data: Buffer = Buffer.alloc(0);
    const reply: Reply = { statuses: [], hung: false, text: "" };
    let silence: NodeJS.Timeout | undefined;
    const hang = setTimeout(() => {
      reply.hung = true;
      socket.destroy();
    }, HUNG_MS);
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(silence);
        socket.removeAllListeners("data");
        socket.off("close", end);
        resolve();
      };
      const quiet = () => {
        clearTimeout(silence);
        silence = setTimeout(() => socket.end(), SILENCE_MS);
      };
      socket.on("data", (chunk: Buffer) => {
        data = data.length > 0 ? Buffer.concat([data, chunk]) : chunk;
        if (!whole) return quiet();
        if (answerLength(data) > 0) end();
      });
      socket.on("close", end);
      if (!whole) quiet();
    });
    clearTimeout(hang);
    const text = data.toString("latin1");
    for (let rest = data; ; ) {
      const status = STATUS.exec(rest.subarray(0, 20).toString("latin1"));
      if (!status) break;
      reply.statuses.push(Number(status[1]));
      const size = status[1] === "100" ? rest.indexOf("\r\n\r\n") + 4 : answerLength(rest);
      if (size <= 0) break;
      rest = rest.subarray(size);
    }
    // The connection's own end is an answer only where nothing was asked properly, or far too much: then the refusal may
    // be lost on the way, because the server does not wait for the rest.
    if (whole && reply.statuses.length === 0 && bytes.length < LARGEST) reply.hung = true;
    if (reply.statuses.some((status) => status >= 500)) reply.text = text.slice(0, 600);
    if (whole && !socket.destroyed && !/\r\nconnection: close/i.test(text)) this.#kept = socket;
    else socket.destroy();
    return reply;
  }

  /** Opens a WebSocket and sends frames; the status of an error event counts as one of an answer. */
  async frames({ bytes, answered }: FrameCase): Promise<Reply> {
    const socket = await open(this.port);
    const key = randomBytes(16).toString("base64");
    socket.write(
      `GET /generate/stream HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-extensions: permessage-deflate\r\nsec-websocket-key: ${key}\r\n\r\n`,
    );
    const reply: Reply = { statuses: [], hung: false, text: "" };
    let data: Buffer = Buffer.alloc(0);
    let upgraded = false;
    const late = setTimeout(() => {
      reply.hung = true;
      socket.destroy();
    }, HUNG_MS);
    socket.on("data", (chunk: Buffer) => {
      data = Buffer.concat([data, chunk]);
      if (!upgraded && data.includes("\r\n\r\n")) {
        upgraded = true;
        socket.write(bytes);
        if (!answered) setTimeout(() => socket.destroy(), SILENCE_MS);
      }
      // A pong with the ping's own words.
      if (data.includes("\x8a\x06alive?", 0, "latin1")) socket.destroy();
    });
    await new Promise((resolve) => socket.once("close", resolve));
    clearTimeout(late);
    const text = data.toString("latin1");
    reply.statuses = [...text.matchAll(/"status":(\d{3})/g)].map(([, status]) => Number(status));
    if (reply.statuses.some((status) => status >= 500)) reply.text = text.slice(0, 600);
    if (!/^HTTP\/1\.1 101/.test(text)) reply.hung = true;
    return reply;
  }

  close(): void {
    this.#kept?.destroy();
  }
}
