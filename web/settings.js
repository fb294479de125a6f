/** What the page asks for, and its form in a link. */

/**
 * What one run has of its own.
 * @typedef {object} RunSettings
 * @property {number} steps Step budget, 1 to 128.
 * @property {boolean} guided Whether the model's discriminator guides the run.
 */

/**
 * What the runs share, and one or two of them.
 * @typedef {object} Settings
 * @property {string} prompt A text to continue, or a template with {{mask:N}} spans.
 * @property {number} length New tokens; a template has its own.
 * @property {number} temperature 0 to 2.
 * @property {number} seed Integer in [0, 2^53).
 * @property {RunSettings[]} runs
 */

/** @type {Settings} */
export const DEFAULTS = {
  prompt: "Once upon a time",
  length: 96,
  temperature: 1,
  seed: 7,
  runs: [{ steps: 16, guided: false }],
};

/** What the second run is when it is first asked for. @type {RunSettings} */
export const SECOND_RUN = { steps: 64, guided: false };

/** Most steps that the page offers. */
export const MAX_STEPS = 128;

/**
 * A number of a link, if it has one in range.
 * @param {URLSearchParams} fields
 * @param {string} name
 * @param {[least: number, most: number]} range
 * @param {number} otherwise
 * @param {boolean} [whole]
 */
function numberOf(fields, name, [least, most], otherwise, whole = true) {
  const text = fields.get(name);
  const value = Number(text);
  const usable = text?.trim() && value >= least && value <= most && (!whole || Number.isInteger(value));
  return usable ? value : otherwise;
}

/**
 * The settings of a link; what it leaves out or has out of range is the default.
 * @param {string} hash With or without its #.
 * @returns {{ settings: Settings, run: boolean }} `run`: whether the link asks to run at once.
 */
export function fromHash(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  /** @type {[number, number]} */
  const steps = [1, MAX_STEPS];
  const first = DEFAULTS.runs[0] ?? SECOND_RUN;
  const runs = [
    { steps: numberOf(fields, "steps", steps, first.steps), guided: fields.get("guided") === "1" },
  ];
  if (fields.has("steps2"))
    runs.push({
      steps: numberOf(fields, "steps2", steps, SECOND_RUN.steps),
      guided: fields.get("guided2") === "1",
    });
  return {
    settings: {
      prompt: fields.get("prompt") ?? DEFAULTS.prompt,
      length: numberOf(fields, "length", [1, 2 ** 20], DEFAULTS.length),
      temperature: numberOf(fields, "temperature", [0, 2], DEFAULTS.temperature, false),
      seed: numberOf(fields, "seed", [0, Number.MAX_SAFE_INTEGER], DEFAULTS.seed),
      runs,
    },
    run: fields.get("run") === "1",
  };
}

/**
 * The settings as the part of a link after the #.
 * @param {Settings} settings
 * @param {{ run?: boolean }} [options] `run`: whether opening the link runs at once.
 */
export function toHash({ prompt, length, temperature, seed, runs }, { run = false } = {}) {
  const fields = new URLSearchParams({
    prompt,
    length: String(length),
    temperature: String(temperature),
    seed: String(seed),
  });
  for (const [i, { steps, guided }] of runs.entries()) {
    const suffix = i === 0 ? "" : String(i + 1);
    fields.set(`steps${suffix}`, String(steps));
    if (guided) fields.set(`guided${suffix}`, "1");
  }
  if (run) fields.set("run", "1");
  return fields.toString();
}
