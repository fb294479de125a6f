/**
 * deploy/nginx/nginx.conf with other ports, without TLS, its logs on the standard streams, and with folders
 * that a user who is not root may write.
 */

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { findProgram, freePort } from "./programs.ts";

/** How to start nginx in front of replicas. */
export interface Nginx {
  path: string;
  args: string[];
  origin: string;
}

/**
 * Write the configuration into `folder`; `replicas` are ports of the loopback interface, or addresses. Throw
 * if nginx is not installed.
 */
export async function writeNginxConf(
  folder: string,
  replicas: readonly (number | string)[],
  port?: number,
): Promise<Nginx> {
  const path = findProgram("nginx");
  if (!path) throw new Error("nginx is missing: apt-get install nginx");
  const text = await readFile(join(PACKAGE_ROOT, "deploy", "nginx", "nginx.conf"), "utf8");
  const listen = port ?? (await freePort());
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${join(folder, name)};`)
    .join(" ");
  const ours = text
    .replace("listen 8443 ssl;", `listen 127.0.0.1:${listen};`)
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
  // -e: the log before the configuration is read.
  const args = [
    "-e",
    "stderr",
    "-p",
    folder,
    "-c",
    file,
    "-g",
    `daemon off; pid ${join(folder, "nginx.pid")};`,
  ];
  return { path, args, origin: `http://127.0.0.1:${listen}` };
}
