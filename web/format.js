/** Formats numbers and tokens. */

/**
 * Return a number with about three digits.
 * @param {number} value
 */
export function brief(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  return value.toFixed(size >= 10 ? 1 : 2);
}

/** Return milliseconds as "ms" or "s". @param {number} ms */
export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${brief(ms / 1000)} s`);

/** Return a probability in per cent. @param {number} logprob Natural. */
export function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  if (value > 0 && value < 0.01) return "below 0.01%";
  return `${value.toPrecision(value < 1 ? 2 : 3)}%`;
}

/** Lower bounds of the probability of each shade except the last, from likely to unlikely. */
const SHADES = [0.9, 0.5, 0.2, 0.05, 0.01, 0.001];

/** Return the shade of a token: 0 (likely) to 6 (unlikely). @param {number} logprob Natural. */
export function shadeOf(logprob) {
  const shade = SHADES.findIndex((least) => Math.exp(logprob) >= least);
  return shade < 0 ? SHADES.length : shade;
}

/**
 * Split the text of a token into visible text and the white space around it. White space alone becomes a
 * sign.
 * @param {string} text
 * @returns {[before: string, ink: string, after: string]}
 */
export function inkOf(text) {
  const ink = text.trim();
  if (ink === "") return ["", text.includes("\n") ? "↵" : "␣", text];
  const start = text.indexOf(ink);
  return [text.slice(0, start), ink, text.slice(start + ink.length)];
}
