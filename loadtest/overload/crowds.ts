/** Slow, silent and vanished clients on raw sockets. */

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** Sockets of one kind, and the number that the server has closed. */
export class Crowd {
  ended = 0;
  readonly sockets: Socket[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(
    readonly name: string,
    readonly port: number,
  ) {}

  /** Open `count` sockets; `begin` sends the first bytes of each. */
  async open(count: number, begin: (socket: Socket) => void): Promise<this> {
    for (let i = 0; i < count; i++) {
      const socket = connect(this.port, "127.0.0.1");
      socket.on("error", () => {});
      socket.once("close", () => this.ended++);
      this.sockets.push(socket);
      await once(socket, "connect");
      begin(socket);
    }
    return this;
  }

  /** Send one byte a second on each socket. */
  drip(byte: string): this {
    this.#timer = setInterval(() => {
      for (const socket of this.sockets) if (socket.writable) socket.write(byte);
    }, 1000);
    return this;
  }

  /** Close with a reset, as after a lost connection. */
  leave(): void {
    clearInterval(this.#timer);
    for (const socket of this.sockets) socket.resetAndDestroy();
  }
}

const HEAD = "POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

const upgrade = () =>
  "GET /generate/stream HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n" +
  `sec-websocket-version: 13\r\nsec-websocket-key: ${randomBytes(16).toString("base64")}\r\n\r\n`;

/** Return a request with a large answer: every step of 16 samples. */
function largeRequest(accept: string): string {
  const body = JSON.stringify({ prompt: "", length: 240, steps: 24, n: 16, trace: true, seed: 5 });
  return `${HEAD}accept: ${accept}\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
}

/** Open every kind of slow client: `size` times about 100 sockets each, and `size` times 1000 idle ones. */
export async function crowds(port: number, size: number): Promise<Crowd[]> {
  const count = (n: number) => Math.max(1, Math.round(n * size));
  const crowd = (name: string) => new Crowd(name, port);
  const neverRead = (accept: string) => (socket: Socket) => {
    socket.pause();
    socket.write(largeRequest(accept));
  };
  return [
    await crowd("idle, without a byte").open(count(500), () => {}),
    await crowd("idle WebSockets that answer pings").open(count(500), (socket) => {
      socket.write(upgrade());
      answerPings(socket);
    }),
    // These clients read: one that does not read the answer would not notice that the server closed the
    // connection.
    await crowd("half of a request, then silence").open(count(100), (socket) =>
      socket.resume().write(`${HEAD}content-le`),
    ),
    (await crowd("headers, a byte a second").open(count(100), (socket) => socket.write(HEAD))).drip("x"),
    (
      await crowd("body, a byte a second").open(count(100), (socket) =>
        socket.write(`${HEAD}content-length: 100000\r\n\r\n{"prompt": "`),
      )
    ).drip("a"),
    await crowd("POST, never reads").open(count(10), neverRead("application/json")),
    await crowd("event stream, never reads").open(count(10), neverRead("text/event-stream")),
  ];
}

/** Answer each ping with a pong of the same payload, of less than 126 bytes. */
function answerPings(socket: Socket): void {
  socket.on("data", (data) => {
    for (let at = data.indexOf(0x89); at >= 0; at = data.indexOf(0x89, at + 2 + data[at + 1]!)) {
      const length = data[at + 1]!;
      const payload = data.subarray(at + 2, at + 2 + length);
      // Masked with zeros.
      socket.write(Buffer.concat([Buffer.of(0x8a, 0x80 | length, 0, 0, 0, 0), payload]));
    }
  });
}
