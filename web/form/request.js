/** Builds the message for the server and the initial canvas from the settings. */

/** @typedef {import("../../src/server/api-types.ts").components["schemas"]} Schemas */
/** @typedef {import("./settings.js").Settings} Settings */
/** @typedef {import("./settings.js").RunSettings} RunSettings */

/**
 * A part of a canvas: fixed text, or a number of masks.
 * @typedef {{ text: string } | { masks: number }} Piece
 */

const MASK_SPAN = /\{\{mask:(\d{1,7})\}\}/;

/** Return whether a text is a template with {{mask:N}} spans. @param {string} text */
export const isTemplate = (text) => MASK_SPAN.test(text);

/**
 * Return the pieces of the canvas in order.
 * @param {Pick<Settings, "prompt" | "length">} settings
 * @returns {Piece[]}
 */
export function piecesOf({ prompt, length }) {
  if (!isTemplate(prompt)) return [{ text: prompt }, { masks: length }];
  // Splitting by a pattern with one group gives texts and counts alternately.
  return prompt
    .split(MASK_SPAN)
    .map((part, i) => (i % 2 === 0 ? { text: part } : { masks: Number(part) }))
    .filter((piece) => ("text" in piece ? piece.text !== "" : piece.masks > 0));
}

/**
 * Return the message that starts a run.
 * @param {string} id
 * @param {Settings} settings
 * @param {RunSettings} run
 */
export function generateMessage(
  id,
  { model, prompt, length, temperature, seed },
  { steps, guided, guidance, remask },
) {
  return {
    type: "generate",
    id,
    ...(model && { model }),
    ...(isTemplate(prompt) ? { template: prompt } : { prompt, length }),
    steps,
    ...(temperature !== undefined && { temperature }),
    seed,
    ...(remask && { remask: { mode: "confidence", rate: remask } }),
    ...(guided && { guidance: { mode: "rgas", ...guidance } }),
  };
}
