/** The shown step of a run: the latest one, or the one of the scrubber or of the replay. */

import { find } from "../dom.js";

/** @typedef {import("./run.js").Run} Run */

/** Approximate duration of a replay, and bounds of the time of one step, milliseconds. */
const REPLAY_MS = 4000;
const [SHORTEST_STEP_MS, LONGEST_STEP_MS] = [30, 500];

/** Steps that arrive together are shown one a frame, and faster if many wait. */
const FRAMES_BEHIND = 8;

/** The scrubber and the replay button of a panel. Calls `changed` when the shown step changes. */
export class Player {
  /** The shown step. */
  step = 0;
  /** @type {Run | undefined} */
  #run;
  #following = false;
  #frame = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #replay;
  #scrubber;
  #button;

  /**
   * @param {HTMLElement} root
   * @param {() => void} changed
   */
  constructor(root, changed) {
    this.changed = changed;
    this.#scrubber = find(root, ".scrubber", HTMLInputElement);
    this.#button = find(root, ".replay", HTMLButtonElement);
    this.#scrubber.addEventListener("input", () => {
      // Read the value first: updating the controls resets it to the shown step.
      const asked = this.#scrubber.valueAsNumber;
      this.#stopReplay();
      this.#following = asked >= this.#reached && !this.#run?.over;
      this.#show(asked);
    });
    this.#button.addEventListener("click", () => (this.#replay ? this.#stopReplay() : this.#startReplay()));
    this.#showControls();
  }

  get #reached() {
    return this.#run?.reached ?? 0;
  }

  /** Show no run. */
  clear() {
    this.#stopReplay();
    this.#run = undefined;
    this.#following = false;
    this.#show(0);
  }

  /** Follow a run from its start. @param {Run} run */
  follow(run) {
    this.clear();
    this.#run = run;
    this.#following = true;
    this.#showControls();
  }

  /** Update after new events of the run. */
  wake() {
    this.#showControls();
    if (this.#frame === 0 && this.#following) this.#frame = requestAnimationFrame(() => this.#catchUp());
  }

  #catchUp() {
    this.#frame = 0;
    const behind = this.#reached - this.step;
    if (!this.#following || behind <= 0) return;
    this.#show(this.step + Math.ceil(behind / FRAMES_BEHIND));
    this.wake();
  }

  /** @param {number} step */
  #show(step) {
    this.step = Math.min(this.#reached, step);
    this.#showControls();
    this.changed();
  }

  #showControls() {
    const last = Math.max(this.#run?.steps ?? 1, this.#reached);
    const scrubber = this.#scrubber;
    scrubber.max = String(last);
    scrubber.value = String(this.step);
    scrubber.disabled = this.#reached === 0;
    scrubber.setAttribute("aria-valuetext", `step ${this.step} of ${last}`);
    scrubber.style.setProperty("--share", String(this.step / last));
    this.#button.disabled = !this.#run?.over || this.#reached === 0;
    const playing = this.#replay !== undefined;
    this.#button.dataset.playing = String(playing);
    this.#button.setAttribute("aria-label", playing ? "Pause the replay" : "Replay the steps");
  }

  #startReplay() {
    this.#following = false;
    const wait = Math.min(LONGEST_STEP_MS, Math.max(SHORTEST_STEP_MS, REPLAY_MS / this.#reached));
    this.#replay = setInterval(() => {
      if (this.step >= this.#reached) this.#stopReplay();
      else this.#show(this.step + 1);
    }, wait);
    this.#show(this.step >= this.#reached ? 0 : this.step);
  }

  #stopReplay() {
    clearInterval(this.#replay);
    this.#replay = undefined;
    this.#showControls();
  }
}
