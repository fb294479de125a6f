/** The state of one request, built from the events of the server. */

/** @typedef {import("../form/request.js").Schemas} Schemas */
/** @typedef {import("../form/request.js").Piece} Piece */
/**
 * Events of the server about runs. @typedef {Exclude<Schemas["ServerEvent"], { type: "authenticated" }>}
 * ServerEvent
 */
/** @typedef {Schemas["Reveal"] & { step: number }} Revealed A token, and the step that revealed it. */

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

/** A run; `take` its events in order. */
export class Run {
  /** @type {"waiting" | "running" | "done" | "cancelled" | "failed"} */
  state = "waiting";
  /** Revealed tokens by the index of their mask. @type {(Revealed | undefined)[]} */
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
    this.cells = new Array(masks).fill(undefined);
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

  /** @param {Schemas["StepEvent"] & { entropy?: number }} event */
  #step({ step, masked, revealed, entropy, guidance }) {
    for (const reveal of revealed) {
      const place = this.#places.get(reveal.position);
      if (place !== undefined) this.cells[place] = { ...reveal, step };
    }
    const total = revealed.reduce((sum, { logprob }) => sum - logprob, 0);
    const surprisal = revealed.length > 0 ? total / revealed.length : undefined;
    this.figures.push({ step, masked, surprisal, entropy, guidance });
  }
}
