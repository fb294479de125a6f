/**
 * `npm run screenshot`: draws docs/pictures/playground.png, two runs of the playground side by side. Needs
 * Chromium.
 */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { script } from "../../loadtest/cli/script.ts";
import { Server } from "../../loadtest/servers/server.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { launchChromium } from "../../test/support/chromium.ts";

const SETTINGS = "prompt=Once+upon+a+time&length=80&seed=7&steps=4&steps2=64&run=1";
const VIEWPORT = { width: 1280, height: 968 };

await script(
  "screenshot",
  "Draw docs/pictures/playground.png: two runs of the playground side by side. Needs Chromium.",
  [],
  async () => {
    const server = await Server.start([]);
    try {
      const { origin } = server;
      await using browser = await launchChromium();
      const page = await browser.newPage({
        viewport: VIEWPORT,
        colorScheme: "light",
        reducedMotion: "reduce",
      });
      await page.goto(`${origin}/#${SETTINGS}`);
      // Both runs are done and shown to their last step.
      for (const [name, steps] of [
        ["A", 4],
        ["B", 64],
      ])
        await page.locator(`[data-name="${name}"][data-state="done"][data-step="${steps}"]`).waitFor();
      // Half-way in both, the canvas shows what this is about.
      for (const [name, step] of [
        ["A", 2],
        ["B", 32],
      ])
        await page.locator(`[data-name="${name}"] .scrubber`).fill(String(step));
      await page.evaluate("document.activeElement.blur(); document.fonts.ready");
      const path = join(PACKAGE_ROOT, "docs", "pictures", "playground.png");
      await page.screenshot({ path });
      console.log(`wrote ${path}, ${(await stat(path)).size} bytes`);
    } finally {
      await server.stop();
    }
    return 0;
  },
);
