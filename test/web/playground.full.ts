/** The playground in headless Chromium. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import type { Engine } from "../../src/engine/engine.ts";
import type { Schemas } from "../../src/server/openapi.ts";
import { TestKeys } from "../server/access/support.ts";
import { launchChromium } from "../support/chromium.ts";
import { openEngine, TEACHER, TINY_GUIDED } from "../support/engine.ts";
import { post } from "../support/http.ts";
import { MASK, PLAIN, startRegistry } from "../support/models.ts";
import { lowContrasts, open, panelIn, Server, SKIPPED, textOf } from "./support.ts";

const PROMPT = "Once upon a time";
/** A run of many steps, which takes long enough to interact with. */
const LONG = "prompt=Once&length=250&steps=128";

describe("the playground", { skip: SKIPPED, timeout: 240_000 }, () => {
  let engine: Engine;
  let server: Server;
  let origin: string;
  let browser: Browser;
  before(async () => {
    browser = await launchChromium();
    engine = await openEngine({}, TEACHER);
    server = new Server(engine);
    origin = await server.start();
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
    await engine?.pool.close();
  });

  const answerOf = async (request: object) => {
    const response = await post(`${origin}/generate`, request);
    return (await response.json()) as Schemas["GenerateResponse"];
  };

  test("loads the model, a connection and a canvas of masks, and nothing from other hosts", async () => {
    const { page, check } = await open(browser, origin);
    await page.locator('#connection[data-state="open"]').waitFor();
    await page.getByText(TEACHER).waitFor();
    assert.equal(await page.locator(".mask").count(), 96);
    assert.equal((await textOf(page)).trim(), PROMPT);
    await page.locator("#length").fill("12");
    assert.equal(await page.locator(".mask").count(), 12);
    assert.ok(await page.locator(".panel .guided").first().isDisabled());
    check();
    await page.close();
  });

  test("offers the models of the server, and runs the chosen one", async () => {
    const several = new Server(await startRegistry([PLAIN, MASK], { maxLoaded: 1 }));
    const address = await several.start();
    const { page, events, check } = await open(browser, address);
    const choice = page.locator("#model");
    await choice.waitFor();
    assert.deepEqual(await choice.locator("option").allTextContents(), ["tiny-plain", "tiny-mask"]);
    await choice.selectOption("tiny-mask");
    await page.locator("#model-name", { hasText: "tiny-mask" }).waitFor();
    await page.locator("#length").fill("8");
    await page.locator("#generate").click();
    await page.locator('.panel[data-state="done"]').waitFor();
    const done = events.find(({ type }) => type === "done") as { model?: string } | undefined;
    assert.equal(done?.model, "tiny-mask");
    // A link names the model.
    const link = await open(browser, page.url());
    await link.page.locator("#model-name", { hasText: "tiny-mask" }).waitFor();
    assert.equal(await link.page.locator("#model").inputValue(), "tiny-mask");
    for (const opened of [{ page, check }, link]) {
      opened.check();
      await opened.page.close();
    }
    await several.stop();
  });

  test("shows the steps of a request in order, and the text of the server", async () => {
    const { page, events, check } = await open(browser, origin);
    await page.evaluate(() => {
      const panel = document.querySelector<HTMLElement>('.panel[data-name="A"]')!;
      const seen: number[] = [];
      Object.assign(window, { seen });
      new MutationObserver(() => seen.push(Number(panel.dataset.step))).observe(panel, {
        attributeFilter: ["data-step"],
      });
    });
    await page.locator("#length").fill("40");
    await page.locator("#seed").fill("5");
    await page.locator("#generate").click();
    await page.locator('.panel[data-state="done"][data-step="16"]').waitFor();
    const arrived = events.flatMap(({ type, step }) => (type === "step" ? [step] : []));
    assert.deepEqual(
      arrived,
      Array.from({ length: 16 }, (_, i) => i + 1),
    );
    const seen = await page.evaluate(() => [...new Set((window as unknown as { seen: number[] }).seen)]);
    assert.ok(seen.length > 2 && seen.every((step, i) => i === 0 || step > seen[i - 1]!), `${seen}`);
    assert.equal(await page.locator(".mask").count(), 0);

    const { samples, usage } = await answerOf({
      prompt: PROMPT,
      length: 40,
      steps: 16,
      temperature: 1,
      seed: 5,
    });
    assert.equal(await textOf(page), PROMPT + samples[0]!.text);
    assert.equal(
      await page.locator('[data-figure="passes"]').first().textContent(),
      `${usage.student_passes}`,
    );
    assert.match((await page.locator('[data-figure="speed"]').first().textContent())!, /^[\d,.]+$/);
    assert.equal(await page.locator(".chart-rewards").first().isVisible(), false);
    check();
    await page.close();
  });

  test("the scrubber replays the steps, and the keyboard inspects tokens", async () => {
    const { page, check } = await open(browser, `${origin}/#prompt=Once&length=30&steps=8&seed=2&run=1`);
    await page.locator('.panel[data-state="done"][data-step="8"]').waitFor();
    const scrubber = page.locator(".scrubber").first();
    await scrubber.press("Home");
    assert.equal(await page.locator(".mask").count(), 30);
    await scrubber.press("ArrowRight");
    await scrubber.press("ArrowRight");
    assert.equal(await page.locator(".status").first().textContent(), "step 2 of 8");
    const masked = await page.locator(".mask").count();
    assert.equal(await page.locator(".chart-masked .reading").first().textContent(), String(masked));
    await page.locator(".replay").first().press("Enter");
    await page.locator('.panel[data-step="8"]').waitFor();
    assert.equal(await page.locator(".mask").count(), 0);

    const bubble = page.locator("#bubble");
    await page.locator(".canvas").first().press("ArrowRight");
    assert.match((await bubble.textContent())!, /probability .+%step \d of 8 · position \d+ · id \d+/);
    await page.keyboard.press("Escape");
    assert.ok(await bubble.isHidden());
    await page.locator(".token .ink").nth(5).hover();
    assert.match((await bubble.textContent())!, /probability/);
    check();
    await page.close();
  });

  test("a link reproduces two runs side by side", async () => {
    const { page, check } = await open(browser, origin);
    await page.locator("#compare").check();
    await page.locator("#length").fill("24");
    await page.locator('.panel[data-name="A"] .steps').fill("4");
    await page.locator('.panel[data-name="B"] .steps').fill("32");
    await page.locator("#prompt").press("Control+Enter");
    await panelIn(page, "done", "A").waitFor();
    await page.locator('.panel[data-name="B"][data-state="done"][data-step="32"]').waitFor();
    await page.locator("#copy-link").click();
    const link = page.url();
    assert.match(link, /run=1/);
    const other = await open(browser, link);
    await other.page.locator('.panel[data-name="A"][data-state="done"][data-step="4"]').waitFor();
    await other.page.locator('.panel[data-name="B"][data-state="done"][data-step="32"]').waitFor();
    for (const name of ["A", "B"]) assert.equal(await textOf(other.page, name), await textOf(page, name));
    assert.notEqual(await textOf(page, "A"), await textOf(page, "B"));
    check();
    other.check();
    await other.page.close();
    await page.close();
  });

  test("cancel stops a run", async () => {
    const { page, check } = await open(browser, `${origin}/#${LONG}&seed=11&run=1`);
    await panelIn(page, "running").waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await panelIn(page, "cancelled").waitFor();
    assert.ok((await page.locator(".mask").count()) > 0);
    await page.getByRole("button", { name: "Generate" }).waitFor();
    check();
    await page.close();
  });

  test("an error of the server is shown, and the next run works", async () => {
    const { page, check } = await open(browser, `${origin}/#prompt=Once&length=256&run=1`);
    await panelIn(page, "failed").waitFor();
    const message = await page.getByRole("alert").first().textContent();
    assert.match(message!, /not valid\..+do not fit the context of 256: at most 255/);
    await page.locator("#length").fill("8");
    await page.locator("#generate").click();
    await panelIn(page, "done").waitFor();
    assert.ok(await page.getByRole("alert").first().isHidden());

    // A link may request guidance that this model lacks: the box stays checked until the user clears it.
    await page.goto(`${origin}/#prompt=Once&length=8&guided=1&run=1`);
    await panelIn(page, "failed").waitFor();
    assert.match((await page.getByRole("alert").first().textContent())!, /guidance/);
    await page.locator(".guided").first().uncheck();
    assert.ok(await page.locator(".guided").first().isDisabled());
    check();
    await page.close();
  });

  test("running requests fail when the server stops, and the page reconnects to it", async () => {
    const { page, check } = await open(browser, `${origin}/#${LONG}&seed=12&run=1`);
    await panelIn(page, "running").waitFor();
    await server.stop();
    await panelIn(page, "failed").waitFor();
    assert.match(
      (await page.getByRole("alert").first().textContent())!,
      /connection was lost.+Generate again/i,
    );
    await page.locator('#connection[data-state="lost"]').waitFor();
    await page.locator("#generate").click();
    await page.getByText("The server cannot be reached").waitFor();
    await server.start();
    await page.locator('#connection[data-state="open"]').waitFor();
    await page.locator("#length").fill("8");
    await page.locator("#generate").click();
    await panelIn(page, "done").waitFor();
    check(/ERR_CONNECTION_REFUSED/);
    await page.close();
  });

  test("with a discriminator, guidance is available and the rewards are shown", async () => {
    const guided = await openEngine({}, TINY_GUIDED);
    const its = new Server(guided);
    const { page, check } = await open(browser, await its.start());
    const own = page.locator('.panel[data-name="A"] .guidance');
    assert.ok(await own.isHidden());
    await page.locator('.panel[data-name="A"] .guided:enabled').check();
    assert.equal(await own.locator(".candidates").getAttribute("placeholder"), "4");
    await own.locator(".candidates").fill("17");
    await page.locator("#length").fill("20");
    await page.locator("#generate").click();
    assert.equal(await page.locator('.panel[data-state="idle"][data-name="A"]').count(), 1);
    await own.locator(".candidates").fill("2");
    await own.locator(".rerank-ratio").fill("1");
    await page.locator("#generate").click();
    await page.locator('.panel[data-state="done"][data-step="16"]').waitFor();
    assert.match(page.url(), /guided=1&candidates=2&rerank=1/);
    assert.match((await page.locator(".chart-rewards .reading").first().textContent())!, /\d/);
    assert.match((await page.locator('[data-figure="passes"]').first().textContent())!, /^\d+ \+ \d+$/);
    check();
    await page.close();
    await its.stop();
    await guided.pool.close();
  });

  test("the page asks for a required key, keeps it for the tab, and asks again if refused", async () => {
    const made = await TestKeys.create({ alice: {} });
    const { alice } = made.keys;
    const its = new Server(engine, { access: { keys: made.ring } });
    const address = await its.start();
    const { page, check } = await open(browser, address);
    const form = page.locator("#key-form");
    await form.getByText("requires an API key").waitFor();
    assert.ok(await page.locator("#api-link").isHidden());
    await page.locator("#key").fill(alice!.replace(/.{4}$/, "AAAA"));
    await page.locator("#key").press("Enter");
    await form.getByText("unknown API key").waitFor();
    assert.deepEqual(await lowContrasts(page, 4.5), []);
    await page.locator("#key").fill(` ${alice} `);
    await page.getByRole("button", { name: "Use this key" }).click();
    await page.locator('#connection[data-state="open"]').waitFor();
    assert.ok(await form.isHidden());
    await page.locator("#length").fill("8");
    await page.locator("#generate").click();
    await panelIn(page, "done").waitFor();
    assert.ok(!page.url().includes("didi_"));
    // The tab keeps the key over a reload; another tab does not have it.
    await page.reload();
    await page.locator('#connection[data-state="open"]').waitFor();
    assert.equal(await page.evaluate(() => JSON.stringify(localStorage) + document.cookie), "{}");
    await page.goto(`${address}/#${LONG}&seed=13&run=1`);
    await panelIn(page, "running").waitFor();
    await made.remove("alice");
    await panelIn(page, "failed").waitFor();
    assert.match((await page.getByRole("alert").first().textContent())!, /requires an API key/);
    await form.getByText("was revoked").waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    check(/401 \(Unauthorized\)/);
    await page.close();
    await its.stop();
  });

  for (const colorScheme of ["light", "dark"] as const)
    test(`on a phone in ${colorScheme}, nothing overflows and texts have contrast`, async () => {
      const address = `${origin}/#prompt=Once&length=60&steps=8&steps2=16&temperature=1.5&seed=4&run=1`;
      const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, colorScheme };
      const { page, check } = await open(browser, address, { ...phone, reducedMotion: "reduce" });
      await panelIn(page, "done", "A").waitFor();
      await page.locator('.panel[data-name="B"][data-state="done"][data-step="16"]').waitFor();
      await page.locator(".about summary").click();
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0);
      assert.deepEqual(await lowContrasts(page, 4.5), []);
      check();
      await page.close();
    });
});
