/** Stepped load on the service while the autoscaler sets the number of replicas. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Check } from "../report/checks.ts";
import { keyHeaders, post } from "../traffic/http.ts";
import { arrivals, openLoop } from "../traffic/open.ts";
import { quantile } from "../traffic/statistics.ts";
import { readyPods } from "./kubernetes.ts";
import { Prometheus } from "./prometheus.ts";
import { SHAPE } from "./throughput.ts";

/** Shares of the time, and arrivals in shares of what one replica can answer. */
const STEPS = [
  { share: 0.15, load: 0.25 },
  { share: 0.4, load: 1.6 },
  { share: 0.45, load: 0.25 },
];
const PERIOD_SECONDS = 5;

/** What was seen at one time. */
export interface Moment {
  seconds: number;
  /** Intended arrivals a second. */
  rate: number;
  replicas: number;
  /** Seconds that the oldest request of any queue has waited. */
  age: number;
  /** 95th percentile of the seconds of the answers since the last moment; absent without one. */
  latency?: number;
}

export interface Autoscaling {
  moments: Moment[];
  answers: number;
  refused: number;
  failed: number;
}

/**
 * Send Poisson arrivals for `seconds` to the service and watch the replicas.
 *
 * @param capacity requests a second that one replica answers
 */
export async function watchAutoscaler(
  origin: string,
  key: string,
  capacity: number,
  seconds: number,
): Promise<Autoscaling> {
  const prometheus = await Prometheus.start(key);
  const result: Autoscaling = { moments: [], answers: 0, refused: 0, failed: 0 };
  let recent: number[] = [];
  let over = false;
  let rate = 0;
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  const watch = async () => {
    for (let next = 0; !over; next += PERIOD_SECONDS) {
      await sleep(Math.max(0, 1000 * (next - elapsed())));
      const [replicas, age] = await Promise.all([
        readyPods().then(({ length }) => length),
        prometheus.value("max(didi_queue_age_seconds)"),
      ]);
      const latency = recent.length > 0 ? quantile(recent, 0.95) : undefined;
      recent = [];
      result.moments.push({ seconds: elapsed(), rate, replicas, age, ...(latency && { latency }) });
    }
  };
  let seed = 0;
  const send = async (intended: number) => {
    const body = { prompt: "", ...SHAPE, seed: seed++ };
    const reply = await post(`${origin}/generate`, body, { headers: keyHeaders() }).catch(() => undefined);
    recent.push((performance.now() - intended) / 1000);
    if (reply?.status === 200) result.answers++;
    else if (reply?.status === 429) result.refused++;
    else result.failed++;
  };
  const watching = watch();
  // Answers to one step may arrive during the next.
  const sending = [];
  for (const [i, { share, load }] of STEPS.entries()) {
    rate = load * capacity;
    const times = arrivals(rate, share * seconds, i);
    sending.push(openLoop(times, send, new AbortController().signal));
    await sleep(1000 * share * seconds);
  }
  await Promise.all(sending);
  over = true;
  await watching;
  await prometheus.stop();
  return result;
}

/** Return what the autoscaler must do. */
export function checksOf({ moments, answers, refused, failed }: Autoscaling): Check[] {
  const most = Math.max(...moments.map(({ replicas }) => replicas));
  const first = moments[0]!.replicas;
  const aged = moments.find(({ age }) => age > 1);
  const added = moments.find(({ replicas, seconds }) => replicas > first && seconds > (aged?.seconds ?? 0));
  const removed = moments.findLast(({ replicas }) => replicas > first);
  const oldest = Math.max(...moments.map(({ age }) => age));
  return [
    {
      claim: "the autoscaler adds a replica when the queue ages",
      holds: aged !== undefined && added !== undefined,
      seen:
        `${first} to ${most} replicas; the queue was older than 1 s at ${Math.round(aged?.seconds ?? -1)} s, ` +
        `the next replica ready at ${Math.round(added?.seconds ?? -1)} s; oldest ${oldest.toFixed(1)} s`,
    },
    {
      claim: "the autoscaler removes it when the load is gone",
      holds: most > first && moments.at(-1)!.replicas === first,
      seen: `${moments.at(-1)!.replicas} at the end, since ${Math.round(removed?.seconds ?? -1)} s`,
    },
    {
      claim: "no request of the stepped load failed",
      holds: failed === 0,
      seen: `${answers} answered, ${refused} refused with 429, ${failed} failed`,
    },
  ];
}
