/** The Chromium of this machine, for what looks at the playground. */

import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

/** Where Debian's package puts it, unless DIDI_CHROMIUM says otherwise. */
export const CHROMIUM = process.env.DIDI_CHROMIUM ?? "/usr/bin/chromium";

/** Whether it is there. */
export const hasChromium = existsSync(CHROMIUM);

/** Starts it, headless. Rejects with what to install if it is not there. */
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
