/** The code blocks of the documentation. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

/** A fenced block that names its language. */
export interface Block {
  /** `README.md:26`, the line of its fence. */
  where: string;
  language: string;
  text: string;
  /** The paragraph before it. */
  before: string;
  /** The block before it in its file. */
  previous: Block | undefined;
}

/**
 * README.md, CONTRIBUTING.md and every page of docs/ that people write; reports are the output of programs.
 */
export const FILES = [
  "README.md",
  "CONTRIBUTING.md",
  ...readdirSync(join(PACKAGE_ROOT, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md") && !name.startsWith("reports"))
    .toSorted()
    .map((name) => join("docs", name)),
];

/** Return the blocks of a file, in order. */
export function blocksOf(file: string, root = PACKAGE_ROOT): Block[] {
  const text = readFileSync(join(root, file), "utf8");
  const blocks: Block[] = [];
  for (const match of text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)) {
    const head = text.slice(0, match.index);
    blocks.push({
      where: `${file}:${head.split("\n").length}`,
      language: match[1]!,
      text: match[2]!,
      before: head.trimEnd().split("\n\n").at(-1)!,
      previous: blocks.at(-1),
    });
  }
  return blocks;
}

/** Return the commands of a shell block, continued lines as one. */
export function commandsOf({ text }: Block): string[] {
  return text
    .replaceAll("\\\n", " ")
    .split("\n")
    .filter((line) => line.trim() !== "" && !line.startsWith("#"));
}
