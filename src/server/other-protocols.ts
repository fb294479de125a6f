/**
 * Requests that offer another protocol than WebSocket, as HTTP clients that would rather speak HTTP/2 do
 * (`h2c`: Java's, curl's). A server may ignore the offer (RFC 9110, 7.8), and here it does.
 *
 * Node takes such a request for an upgrade and stops reading it as HTTP. So it is put back before the bytes
 * that follow it, without the offer, and its connection is taken as if it were new.
 */

import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { Server as TlsServer } from "node:tls";

/** Headers of the offer; HTTP2-Settings is part of one for h2c. */
const OFFER = new Set(["upgrade", "http2-settings"]);

/** Whether a request asks for a WebSocket. */
const asksForWebSocket = ({ headers }: IncomingMessage) =>
  (headers.upgrade ?? "").split(",").some((one) => one.trim().toLowerCase() === "websocket");

/** The head of a request as it came, without the offer. */
function headWithoutOffer({ method, url, httpVersion, rawHeaders }: IncomingMessage): string {
  const lines = [`${method} ${url} HTTP/${httpVersion}`];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const [name, value] = [rawHeaders[i]!, rawHeaders[i + 1]!];
    const known = name.toLowerCase();
    if (OFFER.has(known)) continue;
    if (known !== "connection") {
      lines.push(`${name}: ${value}`);
      continue;
    }
    const kept = value.split(",").filter((one) => !OFFER.has(one.trim().toLowerCase()));
    if (kept.length > 0) lines.push(`${name}: ${kept.join(",")}`);
  }
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/**
 * Make a server answer such requests over HTTP/1.1; its listeners for `upgrade` see those for WebSockets
 * alone.
 */
export function ignoreOtherProtocols(server: Server): void {
  const listeners = server.listeners("upgrade") as ((
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
  ) => void)[];
  server.removeAllListeners("upgrade");
  const connection = server instanceof TlsServer ? "secureConnection" : "connection";
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (asksForWebSocket(request)) {
      for (const listener of listeners) listener.call(server, request, socket, head);
      return;
    }
    const takeAgain = () => {
      // Answers to requests before it, which were sent without waiting, go first.
      const answering = (socket as { _httpMessage?: ServerResponse | null })._httpMessage;
      if (answering) return void answering.once("close", takeAgain);
      if (head.length > 0) socket.unshift(head);
      socket.unshift(Buffer.from(headWithoutOffer(request), "latin1"));
      server.emit(connection, socket);
    };
    takeAgain();
  });
}
