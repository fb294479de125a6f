/** deploy/nginx/nginx.conf before a real server: what it knows of the client, the server learns on every route. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import WebSocket from "ws";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { createKey } from "../../src/server/access/keys.ts";
import { serve } from "../cli/support.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { writeNginxConf } from "../support/nginx.ts";
import { freePort } from "../support/programs.ts";
import { skipWithout } from "./support.ts";

const skip = skipWithout("nginx");
const folder = await mkdtemp(join(tmpdir(), "didi-nginx-"));
/** What nginx writes, the log of requests and that of errors. */
const log = await open(join(folder, "log"), "a+");
const written = () => readFile(join(folder, "log"), "utf8");
const children: ChildProcess[] = [];

/** nginx before one port, listening. */
async function startNginx(port: number): Promise<string> {
  const { path, args, origin } = await writeNginxConf(await mkdtemp(join(folder, "n-")), [port, port]);
  // nginx opens /dev/stdout anew, which goes for files and not for Node's pipes.
  const child = spawn(path, args, { stdio: ["ignore", log.fd, log.fd] });
  children.push(child);
  for (;;) {
    const socket = connect(Number(new URL(origin).port), "127.0.0.1");
    const answer = await Promise.race([once(socket, "connect"), once(socket, "error")]).catch((error) => [
      error,
    ]);
    socket.destroy();
    if (!(answer[0] instanceof Error)) return origin;
    if (child.exitCode !== null) throw new Error("nginx ended");
    await sleep(20);
  }
}

let echo: Server;
let echoOrigin: string;
let origin: string;
before(async () => {
  if (skip) return;
  const server = await serve("--model", TINY_GUIDED, "--device", "cpu");
  children.push(server.child);
  origin = await startNginx(Number(new URL(server.origin).port));
  // One that says what it was sent, also where a socket is asked for.
  echo = createServer((request, response) => response.end(JSON.stringify(request.headers)));
  await once(echo.listen(0, "127.0.0.1"), "listening");
  echoOrigin = await startNginx((echo.address() as AddressInfo).port);
});
after(async () => {
  for (const child of children) child.kill("SIGTERM");
  echo?.close();
  echo?.closeAllConnections();
  await log.close();
  await rm(folder, { recursive: true, force: true });
});

/** The status of a WebSocket's opening: 101, or what it was refused with. */
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

/** A text with all its percent-encoding undone, however often it was applied. */
function unescaped(text: string): string {
  const once = text.replace(/%([0-9a-f]{2})/gi, (_, code) => String.fromCharCode(Number.parseInt(code, 16)));
  return once === text ? once : unescaped(once);
}

const percent = (text: string) => Buffer.from(text).toString("hex").replace(/../g, "%$&");

test("no key in an address stands in nginx's logs, encoded or not, replicas gone or not", {
  skip,
}, async () => {
  const { key } = createKey("alice.b-c", {});
  // A port that nobody listens on: nginx's log of errors then has the requests that failed.
  const gone = await startNginx(await freePort());
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

test("the playground's socket opens behind nginx, another page's does not", { skip }, async () => {
  assert.equal(await openSocket({ origin }), 101);
  assert.equal(await openSocket({}), 101);
  assert.equal(await openSocket({ origin: "http://elsewhere.example" }), 403);
});

test("a name that was rebound to this machine is refused for sockets as for requests", { skip }, async () => {
  const headers = { host: "rebound.example", origin: "http://rebound.example" };
  const refused = await openSocket(headers);
  assert.ok(refused >= 400 && refused < 500, `${refused}`);
});

test("every route is told the client's name for the server, its address and its scheme", {
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

test("a location that sets a header sets all that the others get", async () => {
  const text = await readFile(join(PACKAGE_ROOT, "deploy", "nginx", "nginx.conf"), "utf8");
  const namesIn = (part: string) => Array.from(part.matchAll(/proxy_set_header (\S+)/g), ([, name]) => name!);
  const [shared, ...locations] = text.split(/\blocation /);
  for (const location of locations) {
    const own = namesIn(location);
    if (own.length > 0)
      for (const name of namesIn(shared!)) assert.ok(own.includes(name), `${name}: ${location}`);
  }
});
