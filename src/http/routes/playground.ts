/** GET / and what lies beside it: the files of the playground, read once. */

import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join } from "node:path";
import type { FastifyInstance } from "fastify";
import { PACKAGE_ROOT } from "../../package-root.ts";
import { addPage } from "../pages.ts";

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

/** Those of the files whose names match. They hold nothing that the package does not: no key is asked for. */
export async function pageFiles(app: FastifyInstance, { only }: { only: RegExp }) {
  for (const [address, path] of filesByAddress()) {
    const type = TYPES[extname(path)];
    if (type === undefined || !only.test(path)) continue;
    addPage(app, address, { body: readFileSync(path), type, policy: "app", open: true });
  }
}

export async function playgroundRoutes(app: FastifyInstance) {
  // A key can only be typed into a page that is there.
  await pageFiles(app, { only: /./ });
}
