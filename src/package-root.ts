import { fileURLToPath } from "node:url";

/** The folder of package.json, whether this runs from `src` or from `dist`. */
export const PACKAGE_ROOT = fileURLToPath(new URL("..", import.meta.url));
