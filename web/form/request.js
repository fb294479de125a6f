/** From settings to a message for the server, and to the canvas that it will work on. */

/** @typedef {import("../../src/server/api-types.ts").components["schemas"]} Schemas */
/** @typedef {import("./settings.js").Settings} Settings */
/** @typedef {import("./settings.js").RunSettings} RunSettings */

/**
 * A part of a canvas: text that stays, or so many masks.
 * @typedef {{ text: string } | { masks: number }} Piece
 */

const MASK_SPAN = /\{\{mask:(\d{1,7})\}\}/;

/** Whether a text is a template: it says itself where masks stand. @param {string} text */
export const isTemplate = (text) => MASK_SPAN.test(text);

/**
 * The canvas of settings, in order.
 * @param {Pick<Settings, "prompt" | "length">} settings
 * @returns {Piece[]}
 */
export function piecesOf({ prompt, length }) {
  if (!isTemplate(prompt)) return [{ text: prompt }, { masks: length }];
  // Splitting by a pattern with one group gives texts and counts in turn.
  return prompt
    .split(MASK_SPAN)
    .map((part, i) => (i % 2 === 0 ? { text: part } : { masks: Number(part) }))
    .filter((piece) => ("text" in piece ? piece.text !== "" : piece.masks > 0));
}

/**
 * The message that starts a run.
 * @param {string} id
 * @param {Settings} settings
 * @param {RunSettings} run
 */
export function generateMessage(id, { prompt, length, temperature, seed }, { steps, guided, guidance }) {
  return {
    type: "generate",
    id,
    ...(isTemplate(prompt) ? { template: prompt } : { prompt, length }),
    steps,
    // At 1 the server takes the model's own, which with guidance may be another.
    ...(temperature !== 1 && { temperature }),
    seed,
    ...(guided && { guidance: { mode: "rgas", ...guidance } }),
  };
}
