/** GET / and what lies beside it: the files of the playground, read once. */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join } from "node:path";
import type { FastifyInstance } from "fastify";
import { PACKAGE_ROOT } from "../../package-root.ts";

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};

/** Typefaces come from their packages: address, file. */
const FONTS: readonly [string, string][] = [
  ["/fonts/serif.woff2", "@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-normal.woff2"],
  ["/fonts/sans.woff2", "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2"],
];

/** The page may load from its own server alone, runs no inline script or style, and stands in no frame. */
const HEADERS = {
  "content-security-policy": [
    "default-src 'self'",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join("; "),
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  // Asked for anew each time, answered 304 while it is the same.
  "cache-control": "no-cache",
};

function filesByAddress(): [address: string, path: string][] {
  const web = join(PACKAGE_ROOT, "web");
  const { resolve } = createRequire(import.meta.url);
  return [
    ...readdirSync(web).map((name): [string, string] => [
      name === "index.html" ? "/" : `/${name}`,
      join(web, name),
    ]),
    ...FONTS.map(([address, file]): [string, string] => [address, resolve(file)]),
  ];
}

export async function playgroundRoutes(app: FastifyInstance) {
  for (const [address, path] of filesByAddress()) {
    const type = TYPES[extname(path)];
    if (type === undefined) continue;
    const body = readFileSync(path);
    const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`;
    app.get(address, async (request, reply) => {
      reply.headers(HEADERS).header("etag", etag);
      if (request.headers["if-none-match"] === etag) return reply.code(304).send();
      return reply.type(type).send(body);
    });
  }
}
