/** deploy/nginx/nginx.conf in front of a real server: forwarded headers, keys in logs, WebSockets. */

import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, readFile } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import WebSocket from "ws";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { createKey } from "../../src/server/access/keys.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { startNginx } from "../support/nginx.ts";
import { freePort } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";
import { startServer } from "../support/server.ts";
import { skipWithout } from "./support.ts";

const skip = skipWithout("nginx");
const folder = scratch("nginx");
/** Return the access log and the error log of nginx. */
const log = await open(join(folder, "log"), "a+");
const written = () => readFile(join(folder, "log"), "utf8");
const children: ChildProcess[] = [];

/** Start nginx in front of one port, with its logs in the file. nginx cannot open a pipe of Node again. */
async function proxy(port: number): Promise<string> {
  const own = await mkdtemp(join(folder, "n-"));
  const nginx = await startNginx(own, [port, port], ["ignore", log.fd, log.fd]);
  children.push(nginx.child);
  return nginx.origin;
}

let echo: Server;
let echoOrigin: string;
let origin: string;
before(async () => {
  if (skip) return;
  const server = await startServer(["--model", TINY_GUIDED, "--device", "cpu"]);
  children.push(server.child);
  origin = await proxy(Number(new URL(server.origin).port));
  // A server that answers with the headers it received, also to an upgrade.
  echo = createServer((request, response) => response.end(JSON.stringify(request.headers)));
  await once(echo.listen(0, "127.0.0.1"), "listening");
  echoOrigin = await proxy((echo.address() as AddressInfo).port);
});
after(async () => {
  for (const child of children) child.kill("SIGTERM");
  echo?.close();
  echo?.closeAllConnections();
  await log.close();
});

/** Return the status of a WebSocket handshake: 101, or that of the error. */
async function openSocket(headers: Record<string, string>): Promise<number> {
  const socket = new WebSocket(`${origin.replace("http", "ws")}/generate/stream`, { headers });
  try {
    return await new Promise<number>((resolve, reject) => {
      socket.once("open", () => resolve(101));
      socket.once("unexpected-response", (_, { statusCode }) => resolve(statusCode!));
      socket.once("error", reject);
    });
  } finally {
    socket.terminate();
  }
}

/** Return a text with all levels of percent-encoding decoded. */
function unescaped(text: string): string {
  const once = text.replace(/%([0-9a-f]{2})/gi, (_, code) => String.fromCharCode(Number.parseInt(code, 16)));
  return once === text ? once : unescaped(once);
}

const percent = (text: string) => Buffer.from(text).toString("hex").replace(/../g, "%$&");

test("the logs of nginx hold no key of a URL, encoded or not, with or without replicas", {
  skip,
}, async () => {
  const { key } = createKey("alice.b-c", {});
  // A closed port: nginx logs the failed requests as errors.
  const gone = await proxy(await freePort());
  const addresses = [
    `/generate/${key}`,
    `/generate/${percent(key)}`,
    `/generate/${percent(percent(key))}`,
    `/generate/${key.replace("_", "%5F")}`,
    `/generate/${key.replaceAll("b-c", "b%2dc")}`,
    `/model?api_key=${key}`,
    `/model?api_key=${percent(key)}`,
  ];
  for (const at of [origin, gone])
    for (const address of addresses) {
      const answer = await fetch(`${at}${address}`, { headers: { "x-request-id": key } });
      assert.equal(answer.status, 400, address);
      assert.match(((await answer.json()) as { detail: string }).detail, /API key/);
    }
  // Others pass, and are logged.
  assert.equal((await fetch(`${origin}/model?x=a%20b`, { headers: { "x-request-id": key } })).status, 200);
  assert.equal((await fetch(`${gone}/other?x=a%20b`, { headers: { "x-request-id": key } })).status, 502);
  let text = "";
  while (!text.includes("GET /other") || !text.includes("GET /model")) {
    await sleep(20);
    text = await written();
  }
  assert.ok(text.includes("(refused)") && /\[error\].*\/other/.test(text));
  assert.ok(!unescaped(text).includes(key.slice(-20)), text);
});

test("behind nginx the playground can open a WebSocket, and another page cannot", { skip }, async () => {
  assert.equal(await openSocket({ origin }), 101);
  assert.equal(await openSocket({}), 101);
  assert.equal(await openSocket({ origin: "http://elsewhere.example" }), 403);
});

test("a rebound host name is refused for WebSockets and requests", { skip }, async () => {
  const headers = { host: "rebound.example", origin: "http://rebound.example" };
  const refused = await openSocket(headers);
  assert.ok(refused >= 400 && refused < 500, `${refused}`);
});

test("every route gets the Host header, the address and the scheme of the client", {
  skip,
}, async () => {
  for (const path of ["/generate", "/generate/stream"]) {
    const answer = await fetch(`${echoOrigin}${path}`, { headers: { "x-forwarded-for": "192.0.2.7" } });
    const headers = (await answer.json()) as IncomingHttpHeaders;
    assert.equal(headers.host, new URL(echoOrigin).host, path);
    assert.equal(headers["x-forwarded-for"], "192.0.2.7, 127.0.0.1", path);
    assert.equal(headers["x-forwarded-proto"], "http", path);
  }
});

test("a location that sets a header sets all shared headers", async () => {
  const text = await readFile(join(PACKAGE_ROOT, "deploy", "nginx", "nginx.conf"), "utf8");
  const namesIn = (part: string) => Array.from(part.matchAll(/proxy_set_header (\S+)/g), ([, name]) => name!);
  const [shared, ...locations] = text.split(/\blocation /);
  for (const location of locations) {
    const own = namesIn(location);
    if (own.length > 0)
      for (const name of namesIn(shared!)) assert.ok(own.includes(name), `${name}: ${location}`);
  }
});
