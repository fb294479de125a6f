/** The state and the figures of a run as text. */

import { brief, duration } from "../format.js";

/** @typedef {import("../run/run.js").Run} Run */

/**
 * Return the state of a run.
 * @param {Run | undefined} run
 * @param {number} step The step that is shown.
 */
export function statusOf(run, step) {
  if (!run) return "not run yet";
  if (run.state === "waiting") return "waiting for the server";
  const at = `step ${step} of ${Math.max(run.steps, run.reached)}`;
  if (run.state === "cancelled") return `${at} · cancelled`;
  if (run.state === "failed") return run.reached > 0 ? `${at} · failed` : "failed";
  return run.state === "done" && run.result?.cache === "hit" ? `${at} · kept answer` : at;
}

/**
 * Return the figures of a run by their names on the page; unknown ones are dashes.
 * @param {Run} run
 * @returns {Record<"speed" | "passes" | "passes-label" | "time" | "tokens", string>}
 */
export function figuresOf({ result }) {
  if (!result) return { speed: "–", passes: "–", "passes-label": "passes", time: "–", tokens: "–" };
  const { usage, timing, cache } = result;
  const { student_passes, discriminator_passes, gradient_passes } = usage;
  const extra = discriminator_passes + gradient_passes;
  return {
    // A cached answer has no speed.
    speed: cache === "hit" ? "–" : brief(usage.completion_tokens / (timing.total_ms / 1000)),
    passes: extra > 0 ? `${student_passes} + ${extra}` : String(student_passes),
    "passes-label": extra > 0 ? "passes + guiding" : "passes",
    time: duration(timing.total_ms),
    tokens: String(usage.completion_tokens),
  };
}
