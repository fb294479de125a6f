/** The settings of the page, and their form in a link. */

/**
 * Guidance of a run; the model has defaults for absent settings.
 * @typedef {object} GuidanceSettings
 * @property {[first: number, last: number]} [scale] Of the first and of the last tilted step.
 * @property {number} [candidates] Of a re-ranked step, 1 to 16.
 * @property {number} [rerank_ratio] Share of the steps that re-rank, 0 to 1.
 */

/**
 * Settings of one run.
 * @typedef {object} RunSettings
 * @property {number} steps Step budget, 1 to 128.
 * @property {boolean} guided Whether the model's discriminator guides the run.
 * @property {GuidanceSettings} [guidance]
 * @property {number} [remask] Rate at which unlikely tokens are masked again, above 0, up to 1.
 */

/**
 * Shared settings, and one or two runs.
 * @typedef {object} Settings
 * @property {string} [model] Name of the model; absent: the first of the server.
 * @property {string} prompt A text to continue, or a template with {{mask:N}} spans.
 * @property {number} length New tokens; a template has its own.
 * @property {number} [temperature] 0 to 2; absent: the model's own.
 * @property {number} seed Integer in [0, 2^53).
 * @property {RunSettings[]} runs
 */

/** @type {Settings} */
export const DEFAULTS = {
  prompt: "Once upon a time",
  length: 96,
  seed: 7,
  runs: [{ steps: 16, guided: false }],
};

/** Default of the second run. @type {RunSettings} */
export const SECOND_RUN = { steps: 64, guided: false };

/** Largest step budget of the page. */
export const MAX_STEPS = 128;

/**
 * Return a number of a link if it is in range, otherwise the default.
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

/** @param {URLSearchParams} fields @param {string} suffix @returns {GuidanceSettings | undefined} */
function guidanceOf(fields, suffix) {
  const number = (/** @type {string} */ name, /** @type {[number, number]} */ range, whole = false) =>
    numberOf(fields, name + suffix, range, Number.NaN, whole);
  const scale = [number("scaleFirst", [0, 1e6]), number("scaleLast", [0, 1e6])];
  const [candidates, rerank_ratio] = [number("candidates", [1, 16], true), number("rerank", [0, 1])];
  /** @type {GuidanceSettings} */
  const guidance = {};
  if (!scale.some(Number.isNaN)) guidance.scale = /** @type {[number, number]} */ (scale);
  if (!Number.isNaN(candidates)) guidance.candidates = candidates;
  if (!Number.isNaN(rerank_ratio)) guidance.rerank_ratio = rerank_ratio;
  return Object.keys(guidance).length > 0 ? guidance : undefined;
}

/** @param {URLSearchParams} fields @param {string} suffix @param {number} steps @returns {RunSettings} */
function runOf(fields, suffix, steps) {
  const guidance = guidanceOf(fields, suffix);
  const remask = numberOf(fields, `remask${suffix}`, [0, 1], 0, false);
  return {
    steps: numberOf(fields, `steps${suffix}`, [1, MAX_STEPS], steps),
    guided: fields.get(`guided${suffix}`) === "1",
    ...(guidance && { guidance }),
    ...(remask > 0 && { remask }),
  };
}

/**
 * Return the settings of a link; missing and invalid ones get their defaults.
 * @param {string} hash With or without its #.
 * @returns {{ settings: Settings, run: boolean }} `run`: whether the link runs at once.
 */
export function fromHash(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const runs = [runOf(fields, "", (DEFAULTS.runs[0] ?? SECOND_RUN).steps)];
  if (fields.has("steps2")) runs.push(runOf(fields, "2", SECOND_RUN.steps));
  const model = fields.get("model");
  const temperature = numberOf(fields, "temperature", [0, 2], Number.NaN, false);
  return {
    settings: {
      ...(model && { model }),
      prompt: fields.get("prompt") ?? DEFAULTS.prompt,
      length: numberOf(fields, "length", [1, 2 ** 20], DEFAULTS.length),
      ...(!Number.isNaN(temperature) && { temperature }),
      seed: numberOf(fields, "seed", [0, Number.MAX_SAFE_INTEGER], DEFAULTS.seed),
      runs,
    },
    run: fields.get("run") === "1",
  };
}

/**
 * Return the settings as the fragment of a link.
 * @param {Settings} settings
 * @param {{ run?: boolean }} [options] `run`: run at once when the link is opened.
 */
export function toHash({ model, prompt, length, temperature, seed, runs }, { run = false } = {}) {
  const fields = new URLSearchParams({
    ...(model && { model }),
    prompt,
    length: String(length),
    ...(temperature !== undefined && { temperature: String(temperature) }),
    seed: String(seed),
  });
  for (const [i, { steps, guided, guidance, remask }] of runs.entries()) {
    const { scale, candidates, rerank_ratio } = guidance ?? {};
    const set = (/** @type {string} */ name, /** @type {number | undefined} */ value) => {
      if (value !== undefined) fields.set(name + (i === 0 ? "" : String(i + 1)), String(value));
    };
    set("steps", steps);
    set("guided", guided ? 1 : undefined);
    set("scaleFirst", scale?.[0]);
    set("scaleLast", scale?.[1]);
    set("candidates", candidates);
    set("rerank", rerank_ratio);
    set("remask", remask);
  }
  if (run) fields.set("run", "1");
  return fields.toString();
}
