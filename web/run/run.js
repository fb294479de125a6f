/** The state of one request, built from the events of the server. */

/** @typedef {import("../form/request.js").Schemas} Schemas */
/** @typedef {import("../form/request.js").Piece} Piece */
/**
 * Events of the server about runs. @typedef {Exclude<Schemas["ServerEvent"], { type: "authenticated" }>}
 * ServerEvent
 */
/**
 * A token, the step that revealed it, and the step that masked it again, if one did.
 * @typedef {Schemas["Reveal"] & { step: number, until?: number }} Revealed
 */

/**
 * The figures of a step.
 * @typedef {object} StepFigures
 * @property {number} step From 1.
 * @property {number} masked Positions still masked after it.
 * @property {number | undefined} surprisal Mean -log p of its reveals, nats; absent without any.
 * @property {number | undefined} entropy Mean entropy of its predictions, nats; absent without a draw.
 * @property {Schemas["StepGuidance"] | undefined} guidance
 */

/** An error, and what to do about it. @typedef {{ title: string, detail: string }} Failure */

const CANCELLED = "urn:didi-serve:problem:cancelled";

/**
 * Return the token that is shown after a step, if one is.
 * @param {readonly Revealed[]} tokens Those of one mask, in order of time.
 * @param {number} step
 */
export const tokenAt = (tokens, step) =>
  tokens.find((token) => token.step <= step && (token.until === undefined || token.until > step));

/** A run; `take` its events in order. */
export class Run {
  /** @type {"waiting" | "running" | "done" | "cancelled" | "failed"} */
  state = "waiting";
  /** Revealed tokens by the index of their mask, in order of time. @type {Revealed[][]} */
  cells;
  /** @type {StepFigures[]} */
  figures = [];
  /** The answer, once done. @type {Schemas["DoneEvent"] | undefined} */
  result;
  /** @type {Failure | undefined} */
  failure;
  /** Index of the mask of each position of the canvas. @type {Map<number, number>} */
  #places = new Map();

  /**
   * @param {string} id Id of the request.
   * @param {Piece[]} pieces Its canvas.
   * @param {number} steps Its step budget.
   */
  constructor(id, pieces, steps) {
    this.id = id;
    this.pieces = pieces;
    this.steps = steps;
    const masks = pieces.reduce((sum, piece) => sum + ("masks" in piece ? piece.masks : 0), 0);
    this.cells = Array.from({ length: masks }, () => []);
  }

  /** The latest step; 0 before the first. */
  get reached() {
    return this.figures.at(-1)?.step ?? 0;
  }

  /** Whether the run has ended. */
  get over() {
    return this.state !== "waiting" && this.state !== "running";
  }

  /** Apply the next event of the server. @param {ServerEvent} event */
  apply(event) {
    if (event.type === "accepted") this.#accept(event);
    else if (event.type === "step") this.#step(event);
    else if (event.type === "done") {
      this.state = "done";
      this.result = event;
    } else if (event.error.type === CANCELLED) this.state = "cancelled";
    else this.fail(event.error);
  }

  /** End the run as failed. @param {Failure} failure */
  fail({ title, detail }) {
    this.state = "failed";
    this.failure = { title, detail };
  }

  /** @param {Schemas["AcceptedEvent"]} event */
  #accept({ spans }) {
    this.state = "running";
    for (const { start, length } of spans)
      for (let i = 0; i < length; i++) this.#places.set(start + i, this.#places.size);
  }

  /**
   * End the token shown at a position; return the tokens there.
   * @param {number} position
   * @param {number} step
   */
  #end(position, step) {
    const tokens = this.cells[this.#places.get(position) ?? -1];
    const shown = tokens?.at(-1);
    if (shown && shown.until === undefined) shown.until = step;
    return tokens;
  }

  /** @param {Schemas["StepEvent"] & { entropy?: number }} event */
  #step({ step, masked, revealed, remasked = [], entropy, guidance }) {
    for (const position of remasked) this.#end(position, step);
    for (const reveal of revealed) this.#end(reveal.position, step)?.push({ ...reveal, step });
    const total = revealed.reduce((sum, { logprob }) => sum - logprob, 0);
    const surprisal = revealed.length > 0 ? total / revealed.length : undefined;
    this.figures.push({ step, masked, surprisal, entropy, guidance });
  }
}
