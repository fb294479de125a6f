/** Numbers and tokens as people read them. */

/**
 * A number with about three digits.
 * @param {number} value
 */
export function brief(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  return value.toFixed(size >= 10 ? 1 : 2);
}

/** Milliseconds as milliseconds or seconds. @param {number} ms */
export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${brief(ms / 1000)} s`);

/** A probability as per cent. @param {number} logprob Natural. */
export function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  if (value > 0 && value < 0.01) return "below 0.01%";
  return `${value.toPrecision(value < 1 ? 2 : 3)}%`;
}

/** Least probability of each shade but the last, from sure to surprising. */
const SHADES = [0.9, 0.5, 0.2, 0.05, 0.01, 0.001];

/** Which shade a token gets: 0, sure, to 6, surprising. @param {number} logprob Natural. */
export function shadeOf(logprob) {
  const shade = SHADES.findIndex((least) => Math.exp(logprob) >= least);
  return shade < 0 ? SHADES.length : shade;
}

/**
 * A token's text in three parts: white space around what has ink. White space alone shows as a sign.
 * @param {string} text
 * @returns {[before: string, ink: string, after: string]}
 */
export function inkOf(text) {
  const ink = text.trim();
  if (ink === "") return ["", text.includes("\n") ? "↵" : "␣", text];
  const start = text.indexOf(ink);
  return [text.slice(0, start), ink, text.slice(start + ink.length)];
}
