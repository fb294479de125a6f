/** Temporary folders. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Make an empty folder that is removed after the file's tests. */
export function scratch(name: string): string {
  folders.push(mkdtempSync(join(tmpdir(), `didi-${name}-`)));
  return folders.at(-1)!;
}
