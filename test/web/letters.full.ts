/** The playground shows a model of letters, such as amino acids, in headless Chromium. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { launchChromium } from "../support/chromium.ts";
import { PLAIN, PROTEINS, startRegistry } from "../support/models.ts";
import { open, panelIn, Server, SKIPPED } from "./support.ts";

const OPTIONS = { skip: SKIPPED, timeout: 60_000 };

test("a model of letters starts with an empty canvas, in a face where no letter moves", OPTIONS, async () => {
  const browser = await launchChromium();
  const several = new Server(await startRegistry([PLAIN, PROTEINS], { maxLoaded: 1 }));
  const { page, check } = await open(browser, await several.start());
  const faces = () =>
    [".canvas", "#prompt"].map((selector) =>
      getComputedStyle(document.querySelector(selector)!).fontFamily.endsWith("monospace"),
    );
  await page.locator("#model-name", { hasText: "tiny-plain" }).waitFor();
  assert.deepEqual(await page.evaluate(faces), [false, false]);
  await page.locator("#model").selectOption({ index: 1 });
  await page.getByText("amino acids, a letter a token").waitFor({ state: "attached" });
  assert.deepEqual(await page.evaluate(faces), [true, true]);
  assert.equal(await page.locator("#prompt").inputValue(), "");
  await page.locator("#prompt").fill("MKI{{mask:20}}WWW");
  const places = () =>
    page.evaluate(() => {
      const cells = Array.from(document.querySelectorAll(".cell"));
      const end = cells.findIndex((cell) => cell.classList.contains("end"));
      return cells.slice(0, end < 0 ? 20 : end).map((cell) => cell.getBoundingClientRect().x);
    });
  const masked = await places();
  assert.ok(masked[1]! - masked[0]! > 5, `${masked}`);
  await page.locator("#generate").click();
  await panelIn(page, "done").waitFor();
  const written = await places();
  assert.ok(written.length > 5, `${written}`);
  for (const [i, x] of written.entries()) assert.ok(Math.abs(x - masked[i]!) < 1, `letter ${i} moved`);
  check();
  await browser.close();
  await several.stop();
});
