/** GET / and the files of the playground. */

import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import files from "@fastify/static";
import type { FastifyInstance } from "fastify";
import { PACKAGE_ROOT } from "../../package-root.ts";
import { servePages } from "../security-headers.ts";

/** Typefaces, which come from their packages: the address and the file. */
const FONTS = {
  "/fonts/serif.woff2": "@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-normal.woff2",
  "/fonts/sans.woff2": "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2",
};

export async function playgroundRoutes(app: FastifyInstance) {
  servePages(app, "playground");
  // One route a file, so that the guard and the 404 of unknown paths stay the application's own.
  await app.register(files, { root: join(PACKAGE_ROOT, "web"), wildcard: false });
  const { resolve } = createRequire(import.meta.url);
  for (const [address, file] of Object.entries(FONTS)) {
    const path = resolve(file);
    app.get(address, (_request, reply) => reply.sendFile(basename(path), dirname(path)));
  }
}
