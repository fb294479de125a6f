/** The socket that sends raw bytes. */

import { once } from "node:events";
import { connect } from "node:net";
import { head, type RawCase } from "./raw.ts";

/** The answer to a case. */
export interface Reply {
  /** Statuses of HTTP answers, or of error events on a WebSocket. */
  statuses: number[];
  /** True if there was no answer and the connection stayed open. */
  hung: boolean;
}

/** Time limit of a case, and silence after which an incomplete case has ended. Milliseconds. */
const [HUNG_MS, SILENCE_MS] = [20_000, 30];
/** A larger body may be refused by closing the connection before the answer has been read. */
const LARGEST = 1 << 20;

const UPGRADE = head("GET", "/generate/stream", [
  ...["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"],
  ...[
    "sec-websocket-extensions: permessage-deflate",
    `sec-websocket-key: ${Buffer.alloc(16).toString("base64")}`,
  ],
]);

/** Send a case on a new connection and wait for the answer. */
export async function send(port: number, { kind, bytes, whole }: RawCase): Promise<Reply> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  let [hung, data, upgraded] = [false, "", kind === "request"];
  let silence: NodeJS.Timeout | undefined;
  const listen = () => {
    clearTimeout(silence);
    if (!whole) silence = setTimeout(() => socket.destroySoon(), SILENCE_MS);
  };
  const late = setTimeout(() => {
    hung = true;
    socket.destroy();
  }, HUNG_MS);
  socket.setEncoding("latin1").on("data", (chunk: string) => {
    data += chunk;
    if (!upgraded && data.includes("\r\n\r\n")) {
      upgraded = true;
      socket.write(bytes);
    }
    if (upgraded) listen();
    // A pong with the payload of the ping: everything before it has been read.
    if (kind === "frames" && data.includes("\x8a\x06alive?")) socket.destroy();
  });
  if (kind === "request") listen();
  socket.write(kind === "request" ? bytes : UPGRADE);
  // Not `once`, which rejects on a reset.
  await new Promise((resolve) => socket.once("close", resolve));
  clearTimeout(late);
  clearTimeout(silence);
  const pattern = kind === "request" ? /HTTP\/1\.1 (\d{3}) /g : /"status":(\d{3})/g;
  const statuses = [...data.matchAll(pattern)].map(([, status]) => Number(status));
  const answered = kind === "request" ? statuses.length > 0 || bytes.length > LARGEST : upgraded;
  return { statuses, hung: hung || (whole && !answered) };
}
