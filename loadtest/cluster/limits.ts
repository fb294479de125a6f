/** Limits of a key over the replicas, with Redis in the cluster. */

import { createKey } from "../../src/server/access/keys.ts";
import { until } from "../../test/support/until.ts";
import type { Check } from "../report/checks.ts";
import { scrape } from "../servers/server.ts";
import { post } from "../traffic/http.ts";
import { readyPods } from "./kubernetes.ts";

/** Requests a minute that the key `minute` may send, and those that the check sends. */
const [ALLOWED, SENT] = [6, 14];

/** The keys of the cluster's secret: one for the load, and one with limits for each use of this check. */
export const KEYS = {
  load: createKey("load", {}),
  minute: createKey("minute", { requests_per_minute: ALLOWED }),
  side: createKey("side", { concurrent_requests: 2 }),
};

const headers = (key: string) => ({ authorization: `Bearer ${key}` });

/** Spread requests of limited keys over the pods in turn; all pods together may allow what the key has. */
export async function checkLimits(): Promise<Check[]> {
  const origins = (await readyPods()).map(({ origin }) => origin);
  const load = headers(KEYS.load.key);
  const metric = async (name: string) =>
    Promise.all(origins.map(async (origin) => (await scrape(origin, load)).get(name) ?? 0));
  await until("every pod has Redis", async () => (await metric("didi_redis_up")).every((up) => up === 1));
  const ask = (i: number, key: string, body: object) =>
    post(
      `${origins[i % origins.length]}/generate`,
      { prompt: "Once", length: 24, steps: 4, ...body },
      {
        headers: headers(key),
      },
    );
  const statuses: number[] = [];
  for (let i = 0; i < SENT; i++) statuses.push((await ask(i, KEYS.minute.key, {})).status);
  const allowed = statuses.filter((status) => status === 200).length;
  const refused = statuses.filter((status) => status === 429).length;

  // One long request at each pod: both pods then refuse the third.
  const running = [0, 1].map((i) => ask(i, KEYS.side.key, { length: 240, steps: 240, n: 4 }));
  await until(
    "both run",
    async () => (await metric("didi_active_rows")).filter((rows) => rows > 0).length > 1,
  );
  const third = [(await ask(0, KEYS.side.key, {})).status, (await ask(1, KEYS.side.key, {})).status];
  const long = (await Promise.all(running)).map(({ status }) => status);
  const after = (await ask(0, KEYS.side.key, {})).status;
  return [
    {
      claim: `a key of ${ALLOWED} requests a minute gets ${ALLOWED} from ${origins.length} replicas together`,
      holds: origins.length > 1 && allowed === ALLOWED && refused === SENT - ALLOWED,
      seen: `${allowed} allowed and ${refused} refused with 429, of ${SENT} sent to the pods in turn`,
    },
    {
      claim: "a key of 2 concurrent requests runs one at each replica, and neither takes a third",
      holds: [...third, ...long, after].join() === "429,429,200,200,200",
      seen: `the third ${third.join(" and ")}, the two ${long.join(" and ")}, one after them ${after}`,
    },
  ];
}
