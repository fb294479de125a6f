/** /docs in headless Chromium: the contract is shown, and a request can be sent. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Browser } from "playwright-core";
import type { Engine } from "../../src/engine/engine.ts";
import { ModelRegistry } from "../../src/engine/models/registry.ts";
import { buildAdminApp } from "../../src/server/app.ts";
import { CONTRACT } from "../../src/server/openapi.ts";
import { createMetrics } from "../../src/server/telemetry/metrics.ts";
import { TestKeys } from "../server/access/support.ts";
import { launchChromium } from "../support/chromium.ts";
import { openEngine, TINY_GUIDED } from "../support/engine.ts";
import { open, Server, SKIPPED } from "./support.ts";

describe("the reference", { skip: SKIPPED, timeout: 240_000 }, () => {
  let engine: Engine;
  let browser: Browser;
  before(async () => {
    browser = await launchChromium();
    engine = await openEngine({}, TINY_GUIDED);
  });
  after(async () => {
    await browser?.close();
    await engine?.pool.close();
  });

  test("shows every operation, sends a request, and loads nothing from other hosts", async () => {
    const server = new Server(engine);
    const { page, check } = await open(browser, `${await server.start()}/docs`);
    await page.locator("#operations-default-generate .opblock-summary-control").click();
    for (const operations of Object.values<Record<string, { operationId?: string }>>(CONTRACT.paths))
      for (const { operationId } of Object.values(operations))
        if (operationId) await page.locator(`#operations-default-${operationId}`).waitFor();
    const body = { prompt: "Once", length: 4, steps: 2, seed: 7 };
    await page.locator("#operations-default-generate textarea.body-param__text").fill(JSON.stringify(body));
    await page.locator("#operations-default-generate button.execute").click();
    const answer = page.locator("#operations-default-generate .live-responses-table");
    await answer.getByText("trace_sha256").waitFor();
    assert.match((await answer.textContent())!, /200/);
    check();
    await page.close();
    await server.stop();
  });

  test("with keys, the page loads and sends the entered key", async () => {
    const { ring, keys } = await TestKeys.create({ reader: {} });
    const server = new Server(engine, { access: { keys: ring } });
    const { page, check } = await open(browser, `${await server.start()}/docs`);
    await page.locator("button.authorize").first().click();
    await page.locator(".auth-container input").first().fill(keys.reader!);
    await page.locator(".auth-container button.authorize").first().click();
    await page.locator(".close-modal").click();
    await page.locator("#operations-default-model .opblock-summary-control").click();
    await page.locator("#operations-default-model button.execute").click();
    const answer = page.locator("#operations-default-model .live-responses-table");
    await answer.getByText("context_length").waitFor();
    check();
    await page.close();
    await server.stop();
  });

  test("on the admin port the page sends no requests: the API has another address", async () => {
    const admin = await buildAdminApp(createMetrics(new ModelRegistry(engine)));
    await admin.listen({ host: "127.0.0.1", port: 0 });
    const { page, check } = await open(browser, `${admin.listeningOrigin}/docs`);
    await page.locator("#operations-default-generate .opblock-summary-control").click();
    await page.locator("#operations-default-generate .opblock-body").waitFor();
    assert.equal(await page.locator("button.execute, button.try-out__btn").count(), 0);
    check();
    await page.close();
    await admin.close();
  });
});
