/** The Chromium of this machine, for tests of the playground. */

import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

/** The path of Debian's package, or DIDI_CHROMIUM. */
export const CHROMIUM = process.env.DIDI_CHROMIUM ?? "/usr/bin/chromium";

/** Whether it is installed. */
export const hasChromium = existsSync(CHROMIUM);

/** Start it, headless. Reject with what to install if it is missing. */
export async function launchChromium(): Promise<Browser> {
  if (!hasChromium)
    throw new Error(`${CHROMIUM} is missing: install the package chromium, or set DIDI_CHROMIUM`);
  return chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
