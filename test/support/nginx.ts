/**
 * deploy/nginx/nginx.conf with other ports, without TLS, its logs on the standard streams, and with folders
 * that a user who is not root may write.
 */

import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { findProgram, freePort } from "./programs.ts";
import { until } from "./until.ts";

/** Write the configuration; `replicas` are ports of the loopback interface, or addresses. Return its path. */
export async function writeNginxConf(
  folder: string,
  replicas: readonly (number | string)[],
  port: number,
): Promise<string> {
  const text = await readFile(join(PACKAGE_ROOT, "deploy", "nginx", "nginx.conf"), "utf8");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${join(folder, name)};`)
    .join(" ");
  const ours = text
    .replace("listen 8443 ssl;", `listen 127.0.0.1:${port};`)
    .replace("access.log", "/dev/stdout")
    .replace("error.log", "stderr")
    .replaceAll(/^ *ssl_.*\n/gm, "")
    .replace(/^( *server )127.0.0.1:8081( .*\n).*\n/m, (_, before: string, after: string) =>
      replicas
        .map((replica) => (typeof replica === "number" ? `127.0.0.1:${replica}` : replica))
        .map((address) => `${before}${address}${after}`)
        .join(""),
    )
    .replace("http {", `http { ${temporary}`);
  const file = join(folder, "nginx.conf");
  await writeFile(file, ours);
  return file;
}

/**
 * Start nginx in front of replicas, on a free port, and wait until it answers. It ends with this process, or
 * by SIGTERM: SIGKILL of the master would leave its workers. Rejects if nginx is not installed.
 */
export async function startNginx(
  folder: string,
  replicas: readonly (number | string)[],
  stdio: StdioOptions = ["ignore", "ignore", "inherit"],
): Promise<{ child: ChildProcess; origin: string }> {
  const path = findProgram("nginx");
  if (!path) throw new Error("nginx is missing: apt-get install nginx");
  const port = await freePort();
  const file = await writeNginxConf(folder, replicas, port);
  // -e: the log before the configuration is read.
  const pid = `daemon off; pid ${join(folder, "nginx.pid")};`;
  const child = spawn(path, ["-e", "stderr", "-p", folder, "-c", file, "-g", pid], { stdio });
  const kill = () => child.kill("SIGTERM");
  process.once("exit", kill);
  child.once("exit", () => process.removeListener("exit", kill));
  const origin = `http://127.0.0.1:${port}`;
  await until("nginx answers", () => {
    if (child.exitCode !== null) throw new Error("nginx ended");
    return fetch(origin).then(
      () => true,
      () => false,
    );
  });
  return { child, origin };
}
