/** The WebSocket to the server: opened again, later and later, whenever it is lost. */

/** @typedef {import("./run.js").ServerEvent} ServerEvent */

/** First and longest wait before another try, milliseconds. */
const [FIRST_WAIT_MS, LONGEST_WAIT_MS] = [500, 8000];

/**
 * @typedef {object} Listeners
 * @property {() => void} opened
 * @property {(event: ServerEvent) => void} received
 * @property {(waitMs: number) => void} lost Another try comes after `waitMs`.
 */

/** A connection that comes back. */
export class Connection {
  /** @type {WebSocket | undefined} */
  #socket;
  #wait = FIRST_WAIT_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {string} address ws: or wss:
   * @param {Listeners} listeners
   */
  constructor(address, listeners) {
    this.address = address;
    this.listeners = listeners;
    addEventListener("online", () => this.retry());
    this.#open();
  }

  /** Sends a message; false if the connection is not open. @param {unknown} message */
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Tries at once, if the next try is being waited for. */
  retry() {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#open();
  }

  #open() {
    this.#timer = undefined;
    const socket = new WebSocket(this.address);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      this.#wait = FIRST_WAIT_MS;
      this.listeners.opened();
    });
    socket.addEventListener("message", ({ data }) => this.listeners.received(JSON.parse(data)));
    socket.addEventListener("close", () => {
      const wait = this.#wait;
      this.#wait = Math.min(LONGEST_WAIT_MS, wait * 2);
      this.#timer = setTimeout(() => this.#open(), wait);
      this.listeners.lost(wait);
    });
  }
}
