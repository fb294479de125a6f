/** A server, and the playground in Chromium. */

import assert from "node:assert/strict";
import type { FastifyInstance } from "fastify";
import type { BrowserContextOptions, Page } from "playwright-core";
import type { Engine } from "../../src/engine/engine.ts";
import { ModelRegistry } from "../../src/engine/models/registry.ts";
import { type AppOptions, buildApp } from "../../src/server/app.ts";
import { CHROMIUM, hasChromium } from "../support/chromium.ts";

/** Reason to skip the browser tests, or false. In CI a missing browser fails them instead. */
export const SKIPPED =
  !hasChromium && !process.env.DIDI_REQUIRE_BROWSER
    ? `no browser at ${CHROMIUM}: install the package chromium, or set DIDI_CHROMIUM`
    : false;

/** A server that can stop and start again at the same address. */
export class Server {
  #app: FastifyInstance | undefined;
  #port = 0;

  constructor(
    readonly served: Engine | ModelRegistry,
    readonly options: AppOptions = {},
  ) {}

  async start(): Promise<string> {
    const { served } = this;
    const models = served instanceof ModelRegistry ? served : new ModelRegistry(served);
    this.#app = await buildApp(models, this.options);
    await this.#app.listen({ host: "127.0.0.1", port: this.#port });
    this.#port = Number(new URL(this.#app.listeningOrigin).port);
    return this.#app.listeningOrigin;
  }

  async stop(): Promise<void> {
    await this.#app?.close();
  }
}

/** A page that must contact only its own server and log no error. */
export interface Watched {
  page: Page;
  /** Parsed messages of the server, in order. */
  events: { type: string; id?: string; step?: number }[];
  /** Throw if the page contacted another host or logged an error that does not match `expected`. */
  check(expected?: RegExp): void;
}

/** Open an address in a new browser context. */
export async function open(
  browser: { newPage(options: BrowserContextOptions): Promise<Page> },
  address: string,
  options: BrowserContextOptions = {},
): Promise<Watched> {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options });
  page.setDefaultTimeout(20_000);
  const { host } = new URL(address);
  const faults: string[] = [];
  const events: Watched["events"] = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(message.text());
  });
  page.on("request", (request) => {
    if (new URL(request.url()).host !== host) faults.push(`asked for ${request.url()}`);
  });
  page.on("websocket", (socket) =>
    socket.on("framereceived", ({ payload }) => events.push(JSON.parse(String(payload)))),
  );
  await page.goto(address);
  const check = (expected?: RegExp) =>
    assert.deepEqual(
      faults.filter((fault) => !expected?.test(fault)),
      [],
    );
  return { page, events, check };
}

/** Return a panel in this state. */
export const panelIn = (page: Page, state: string, name = "A") =>
  page.locator(`.panel[data-name="${name}"][data-state="${state}"]`);

/** Return the text of a canvas without masks and white-space signs. */
export async function textOf(page: Page, name = "A"): Promise<string> {
  const text = await page.locator(`.panel[data-name="${name}"] .canvas`).textContent();
  return text!.replaceAll("↵", "");
}

/** Return the texts of a page whose contrast to their background is below a ratio. */
export async function lowContrasts(page: Page, least: number): Promise<string[]> {
  // The compiled function calls a helper of esbuild that the page lacks.
  await page.evaluate("globalThis.__name = (named) => named");
  return page.evaluate(findLowContrasts, least);
}

/**
 * Runs in the page: texts whose contrast to what lies behind them is below a ratio. Colours are composed by
 * drawing them, since computed ones come in several notations.
 */
function findLowContrasts(least: number): string[] {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })!;
  const blend = (layers: string[]) => {
    context.clearRect(0, 0, 1, 1);
    for (const layer of layers) {
      context.fillStyle = layer;
      context.fillRect(0, 0, 1, 1);
    }
    return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const luminance = (rgb: number[]) => {
    const [r, g, b] = rgb.map((byte) => {
      const share = byte / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
  };
  const found: string[] = [];
  for (const element of document.querySelectorAll<HTMLElement>("body *")) {
    const own = Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.nodeValue!.trim());
    if (!own || !element.checkVisibility() || element.closest(".mask, :disabled, .unseen")) continue;
    const layers: string[] = [];
    for (let at: Element | null = element; at; at = at.parentElement)
      layers.unshift(getComputedStyle(at).backgroundColor);
    const behind = luminance(blend(layers));
    const text = luminance(blend([...layers, getComputedStyle(element).color]));
    const ratio = (Math.max(behind, text) + 0.05) / (Math.min(behind, text) + 0.05);
    if (ratio < least) found.push(`${ratio.toFixed(2)} ${element.className} ${element.textContent}`);
  }
  return found;
}
