/**
 * `npm run picture`: draws docs/pictures/denoising.svg, the canvas of a real sample after each of its steps.
 */

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { script } from "../../loadtest/cli/script.ts";
import { ONE_AT_A_TIME, startEngine, warmUp } from "../../src/cli/start-engine.ts";
import type { StepEvent } from "../../src/engine/answers/step-emitter.ts";
import { MASK_GLYPH } from "../../src/model/byte-level.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const REQUEST = { prompt: "Once upon a time", length: 20, steps: 8, seed: 7 };
const LINE = 26;

const escapeXml = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("\n", "⏎");

/** A line of text with its masked positions as faint blocks. */
function spans(text: string): string {
  const parts = text.split(new RegExp(`(${MASK_GLYPH}+)`)).filter((part) => part !== "");
  return parts
    .map((part) =>
      part.startsWith(MASK_GLYPH)
        ? `<tspan fill="#b8c4d6">${"▇ ".repeat(part.length).trimEnd()}</tspan>`
        : escapeXml(part),
    )
    .join("");
}

await script(
  "picture",
  "Draw docs/pictures/denoising.svg: the canvas of a real request after each of its steps.",
  [],
  async () => {
    const engine = await startEngine(
      { model: "stories-didi", device: "cpu", precision: "auto", threads: 0 },
      ONE_AT_A_TIME,
    );
    await warmUp(engine);
    const steps: StepEvent[] = [];
    await engine.submit(REQUEST, (step) => steps.push(step)).result;
    await engine.pool.close();

    const start = { step: 0, steps: REQUEST.steps, text: MASK_GLYPH.repeat(REQUEST.length) };
    const lines = [start, ...steps].map(({ step, text }, i) => {
      const y = 34 + i * LINE;
      return `  <text x="20" y="${y}" fill="#7b8794">${step}</text>
  <text x="48" y="${y}"><tspan fill="#7b8794">${REQUEST.prompt}</tspan>${spans(text)}</text>`;
    });
    const height = 34 + lines.length * LINE;
    const font = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
    const attributes = `viewBox="0 0 960 ${height}" font-family="${font}" font-size="14" fill="#1f2933"`;
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" ${attributes} xml:space="preserve">
  <title>The canvas of one sample after each of its ${REQUEST.steps} steps</title>
  <rect width="960" height="${height}" rx="8" fill="#f7f9fc"/>
${lines.join("\n")}
</svg>
`;
    const path = join(PACKAGE_ROOT, "docs", "pictures", "denoising.svg");
    await writeFile(path, svg);
    console.log(`wrote ${path}`);
    return 0;
  },
);
