/**
 * Clients of other servers, each installed from its registry and used as its documentation shows, against a
 * server started by `npm start`. The results are the table of docs/clients.md; `DIDI_WRITE=1` writes it anew.
 * `DIDI_CLIENTS=latest` takes the newest version of each client in place of the pinned one.
 */

import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { untilReady } from "../../loadtest/servers/server.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { makeChatModel } from "../support/chat-model.ts";
import { hasChromium, launchChromium } from "../support/chromium.ts";
import { dataOf, post } from "../support/http.ts";
import { scratch } from "../support/scratch.ts";

const run = promisify(execFile);
const HERE = join(PACKAGE_ROOT, "test", "clients");
const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "didi-serve");

/** Whether to take the newest versions instead of the pinned ones. */
const LATEST = process.env.DIDI_CLIENTS === "latest";

/** A row of the table. */
interface Result {
  client: string;
  language: string;
  version: string;
  done: string;
}

const results: Result[] = [];
const servers: ChildProcess[] = [];
/** Of a server with the model that ships, and of one with a chat model of random weights. */
let origin: string;
let chatOrigin: string;
const root = scratch("clients");

/** Start a server and return its origin. */
async function start(...flags: string[]): Promise<string> {
  const server = spawn("npm", ["start", "--", ...flags], {
    cwd: PACKAGE_ROOT,
    env: { ...process.env, DIDI_PORT: "0", DIDI_LOG_LEVEL: "warn" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  servers.push(server);
  return (await untilReady(server)).origin;
}

before(async () => {
  const folder = join(root, "chat");
  mkdirSync(folder);
  await makeChatModel(folder);
  origin = await start();
  chatOrigin = await start("--model", folder);
});
after(async () => {
  for (const server of servers) {
    const exit = once(server, "exit");
    server.kill("SIGTERM");
    await exit;
  }
});

/**
 * Return the folder of the clients that a file lists, with the file in it; `install` fills it if it is not
 * complete. `pin` matches a version in the file, and `newest` stands for the newest one.
 */
async function installed(
  kind: string,
  list: string,
  [pin, newest]: [pin: RegExp, newest: string],
  install: (folder: string) => Promise<void>,
): Promise<string> {
  const pinned = readFileSync(join(HERE, list), "utf8");
  const hash = createHash("sha256").update(pinned).digest("hex").slice(0, 16);
  const folder = LATEST ? join(root, kind) : join(CACHE, `${kind}-${hash}`);
  if (existsSync(join(folder, "complete"))) return folder;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, list), LATEST ? pinned.replaceAll(pin, newest) : pinned);
  await install(folder);
  writeFileSync(join(folder, "complete"), "");
  return folder;
}

/** Run a program that prints a result on each line that is JSON; add the results to the table. */
async function collect(
  program: string,
  args: string[],
  options: { cwd?: string; env?: object } = {},
): Promise<void> {
  const env = { ...process.env, ...options.env };
  const { stdout } = await run(program, args, { ...options, env, timeout: 240_000, maxBuffer: 1 << 24 });
  const lines = stdout.split("\n").filter((line) => line.startsWith("{"));
  assert.ok(lines.length > 0, stdout);
  results.push(...lines.map((line): Result => JSON.parse(line)));
}

test("clients for Node", { timeout: 400_000 }, async () => {
  const folder = await installed(
    "clients-npm",
    "package.json",
    [/: "\d[^"]*"/g, ': "latest"'],
    async (to) => {
      await run("npm", ["install", "--silent", "--no-audit", "--no-fund"], { cwd: to });
    },
  );
  cpSync(join(HERE, "clients.mjs"), join(folder, "clients.mjs"));
  await collect("node", [join(folder, "clients.mjs"), origin, chatOrigin]);
});

test("clients for Python", { timeout: 600_000 }, async () => {
  const folder = await installed("venv", "requirements.txt", [/==\S+/g, ""], async (to) => {
    await run("python3", ["-m", "venv", to]);
    const quiet = ["install", "--quiet", "--disable-pip-version-check"];
    await run(join(to, "bin", "pip"), [...quiet, "-r", join(to, "requirements.txt")]);
  });
  const model = join(PACKAGE_ROOT, "models", "stories-didi");
  const program = join(folder, "bin", "python");
  await collect(program, [join(HERE, "clients.py"), origin, model, root, chatOrigin]);
});

test("Java's HttpClient", async (context) => {
  const java = await run("java", ["-version"]).catch(() => undefined);
  if (!java) return context.skip("java is not installed");
  await collect("java", [join(HERE, "Client.java"), origin]);
});

test("Go's net/http and golang.org/x/net/websocket", async (context) => {
  const go = await run("go", ["version"]).catch(() => undefined);
  if (!go) return context.skip("go is not installed");
  const cwd = join(root, "go");
  cpSync(join(HERE, "go"), cwd, { recursive: true });
  if (LATEST) await run("go", ["get", "golang.org/x/net@latest"], { cwd });
  const [, version] = /golang\.org\/x\/net v(\S+)/.exec(readFileSync(join(cwd, "go.mod"), "utf8"))!;
  await collect("go", ["run", ".", origin], { cwd, env: { SOCKET_VERSION: version } });
});

test("curl with HTTP/2 offered", async () => {
  const { stdout } = await run("curl", ["--version"]);
  const asked = ["-sS", "--http2", "-w", "%{http_code} %{http_version}", "-o", "/dev/null"];
  const body = JSON.stringify({ prompt: "Once upon a time", length: 16, steps: 4 });
  const json = ["-H", "content-type: application/json", "-d", body];
  const { stdout: status } = await run("curl", [...asked, ...json, `${origin}/generate`]);
  assert.equal(status, "200 1.1");
  const done = "POST /generate with --http2; answered over HTTP/1.1";
  results.push({ client: "curl", language: "Shell", version: stdout.split(" ")[1]!, done });
});

/** What a page does: send one request over a WebSocket and return every event. */
const SOCKET_IN_PAGE = `new Promise((resolve, reject) => {
  const events = [];
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/generate/stream");
  socket.onerror = () => reject(new Error("the socket failed"));
  socket.onopen = () =>
    socket.send(JSON.stringify({ type: "generate", id: "a", prompt: "Once upon a time", steps: 4 }));
  socket.onmessage = ({ data }) => {
    events.push(JSON.parse(data));
    if (["done", "error"].includes(events.at(-1).type)) resolve(events);
  };
})`;

/** What a page does: receive every event of a request, and leave the EventSource alone until it stops. */
const EVENTS_IN_PAGE = `new Promise((resolve) => {
  const events = [];
  const request = JSON.stringify({ prompt: "Once upon a time", steps: 4 });
  const source = new EventSource("/generate?request=" + encodeURIComponent(request));
  for (const type of ["accepted", "step", "done"])
    source.addEventListener(type, ({ data }) => events.push(JSON.parse(data)));
  source.addEventListener("error", () => source.readyState === EventSource.CLOSED && resolve(events));
})`;

/** Each client of a page: what runs there, and what was done. */
const IN_PAGE: [client: string, script: string, done: string][] = [
  [
    "EventSource",
    EVENTS_IN_PAGE,
    "GET /generate from a page, every step received; stops after the last event",
  ],
  ["WebSocket", SOCKET_IN_PAGE, "a request over /generate/stream from a page, every step received"],
];

const noBrowser = !hasChromium && !process.env.DIDI_REQUIRE_BROWSER && "no Chromium: set DIDI_CHROMIUM";

for (const [client, script, done] of IN_PAGE)
  test(`${client} in Chromium`, { skip: noBrowser }, async () => {
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await page.goto(origin);
      const events: { type: string; samples?: { text: string }[] }[] = await page.evaluate(script);
      const types = events.map(({ type }) => type);
      assert.deepEqual(types, ["accepted", "step", "step", "step", "step", "done"]);
      assert.ok(events.at(-1)!.samples![0]!.text.length > 0);
      results.push({ client, language: "Chromium", version: browser.version(), done });
    } finally {
      await browser.close();
    }
  });

/** What the benchmark clients of other servers send; their packages bring CUDA. */
const RECORDED: [client: string, fields: object][] = [
  [
    "vllm bench serve",
    { repetition_penalty: 1.0, logprobs: null, stream: true, stream_options: { include_usage: true } },
  ],
  ["sglang.bench_serving", { best_of: 1, stream: true, temperature: 0, ignore_eos: true }],
];

for (const [client, fields] of RECORDED)
  test(`the request of ${client}`, async () => {
    const payload = { model: "stories-didi", prompt: "Once upon a time", max_tokens: 32, ...fields };
    const events = dataOf(await (await post(`${origin}/v1/completions`, payload)).text());
    assert.equal(events.pop(), "[DONE]");
    // How many chunks there are depends on which positions a step reveals.
    const choices = events.flatMap((event) => JSON.parse(event).choices);
    assert.notEqual(choices.map(({ text }) => text).join(""), "");
    assert.match(choices.at(-1).finish_reason, /^(stop|length)$/);
    const done = "its request to /v1/completions, recorded: the client itself is not installed";
    results.push({ client, language: "Python", version: "-", done });
  });

const START = "<!-- table: test/clients -->\n";

test("docs/clients.md has this table", () => {
  const path = join(PACKAGE_ROOT, "docs", "clients.md");
  const rows = results.map((row) => `| ${row.client} | ${row.language} | ${row.version} | ${row.done} |`);
  const table = ["| client | language | version | what was done |", "|---|---|---|---|", ...rows.sort()].join(
    "\n",
  );
  const page = readFileSync(path, "utf8");
  const head = page.slice(0, page.indexOf(START) + START.length);
  if (process.env.DIDI_WRITE === "1") writeFileSync(path, `${head}\n${table}\n`);
  // Versions that are not pinned, such as curl's, are those of the machine. `npm run format` aligns columns.
  const names = (text: string) =>
    text
      .split("\n")
      .filter((line) => line.startsWith("| "))
      .map((line) => line.split("|").map((cell) => cell.trim()))
      .filter(([, client]) => !/^-+$/.test(client!))
      .map(([, client, language, , done]) => [client, language, done]);
  assert.deepEqual(names(readFileSync(path, "utf8").slice(head.length)), names(table));
});
