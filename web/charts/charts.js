/** The charts of a run. */

import { find } from "../dom.js";
import { brief } from "../format.js";
import { Chart } from "./chart.js";

/** @typedef {import("../run/run.js").Run} Run */
/** @typedef {import("./chart.js").Series} Series */

/** The largest surprisal or entropy of a run, nats. @param {Run | undefined} run */
export function mostNats(run) {
  const values = (run?.figures ?? []).flatMap(({ surprisal = 0, entropy = 0 }) => [surprisal, entropy]);
  return Math.max(1, ...values);
}

/** The charts below a canvas. */
export class Charts {
  #masked;
  #nats;
  #rewards;
  #rewardsFigure;
  #entropyKey;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#masked = new Chart(find(root, ".chart-masked", HTMLElement));
    this.#nats = new Chart(find(root, ".chart-nats", HTMLElement));
    this.#rewardsFigure = find(root, ".chart-rewards", HTMLElement);
    this.#rewards = new Chart(this.#rewardsFigure);
    this.#entropyKey = find(root, ".key-entropy", HTMLElement);
  }

  /**
   * @param {Run} run
   * @param {number} cursor The step that is shown.
   * @param {number} nats Top of the axis of surprisal, the same for runs side by side.
   */
  draw(run, cursor, nats) {
    const { figures, cells } = run;
    const steps = Math.max(run.steps, run.reached);
    const now = figures.findLast(({ step }) => step <= cursor);
    /** @type {[number, number][]} */
    const masked = [[0, cells.length], ...figures.flatMap(toPoint(({ masked }) => masked))];
    this.#masked.draw({
      series: [{ style: "area", points: masked }],
      steps,
      range: [0, cells.length],
      cursor,
      reading: String(now?.masked ?? cells.length),
    });

    const entropy = figures.flatMap(toPoint(({ entropy }) => entropy));
    this.#entropyKey.hidden = entropy.length === 0;
    this.#nats.draw({
      series: [
        { style: "line", points: figures.flatMap(toPoint(({ surprisal }) => surprisal)) },
        { style: "second-line", points: entropy },
      ],
      steps,
      range: [0, nats],
      cursor,
      reading: `${readingOf(now?.surprisal, ...(entropy.length > 0 ? [now?.entropy] : []))} nats`,
    });
    this.#drawRewards(run, steps, cursor);
  }

  /**
   * @param {Run} run
   * @param {number} steps
   * @param {number} cursor
   */
  #drawRewards({ figures }, steps, cursor) {
    const guided = figures.filter(({ guidance }) => guidance !== undefined);
    this.#rewardsFigure.hidden = guided.length === 0;
    if (guided.length === 0) return;
    const all = guided.flatMap(({ guidance }) => guidance?.rewards ?? []);
    const now = guided.findLast(({ step }) => step <= cursor)?.guidance;
    this.#rewards.draw({
      series: [
        {
          style: "candidate",
          points: guided.flatMap(({ step, guidance }) =>
            (guidance?.rewards ?? []).map((reward) => /** @type {[number, number]} */ ([step, reward])),
          ),
        },
        { style: "chosen", points: guided.flatMap(toPoint(({ guidance }) => keptReward(guidance))) },
      ],
      steps,
      range: [Math.min(...all), Math.max(...all)],
      cursor,
      reading: readingOf(keptReward(now)),
    });
  }
}

/** Return values as text, a dash for undefined. @param {...(number | undefined)} values */
const readingOf = (...values) =>
  values.map((value) => (value === undefined ? "–" : brief(value))).join(" · ");

/**
 * Return the reward of the kept candidate. @param {import("../run/run.js").StepFigures["guidance"]} guidance
 */
const keptReward = (guidance) => guidance?.rewards[guidance.chosen ?? 0];

/**
 * Return a function from a step to its point, or to none without the value.
 * @param {(figures: import("../run/run.js").StepFigures) => number | undefined} read
 * @returns {(figures: import("../run/run.js").StepFigures) => [number, number][]}
 */
function toPoint(read) {
  return (figures) => {
    const value = read(figures);
    return value === undefined ? [] : [[figures.step, value]];
  };
}
