/** Waiting for a condition. */

import { setTimeout as sleep } from "node:timers/promises";

/** Resolve when a condition holds; check it every `everyMs`. Rejects after `seconds`. */
export async function until(
  what: string,
  holds: () => Promise<boolean> | boolean,
  seconds = 60,
  everyMs = 10,
): Promise<void> {
  const late = performance.now() + 1000 * seconds;
  while (!(await holds())) {
    if (performance.now() > late) throw new Error(`not within ${seconds} s: ${what}`);
    await sleep(everyMs);
  }
}

/** Whether a GET of an address is answered with 2xx. */
export const answers = (url: string): Promise<boolean> =>
  fetch(url).then(
    ({ ok }) => ok,
    () => false,
  );
