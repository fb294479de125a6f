/** The WebSocket to the server: opened again, later and later, whenever it is lost. */

/** @typedef {import("./form/request.js").Schemas["ServerEvent"]} ServerEvent */
/** @typedef {import("./run/run.js").ServerEvent} RunEvent */

/** First and longest wait before another try, milliseconds. */
const [FIRST_WAIT_MS, LONGEST_WAIT_MS] = [500, 8000];

/** How a server closes a socket without a key that it knows. */
const UNAUTHORIZED = 4401;

/**
 * @typedef {object} Listeners
 * @property {() => void} opened
 * @property {(event: RunEvent) => void} received
 * @property {(why: string) => void} refused The server wants a key, or another: `reopen` once there is one.
 * @property {(waitMs: number) => void} lost Another try comes after `waitMs`.
 */

/** A connection that comes back. */
export class Connection {
  /** @type {WebSocket | undefined} */
  #socket;
  #wait = FIRST_WAIT_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #why = "This server requires an API key.";

  /**
   * @param {string} address ws: or wss:
   * @param {() => string | undefined} key The API key to use, if there is one.
   * @param {Listeners} listeners
   */
  constructor(address, key, listeners) {
    this.address = address;
    this.key = key;
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

  /** Opens it anew, with the key that there now is. */
  reopen() {
    clearTimeout(this.#timer);
    const before = this.#socket;
    this.#open();
    before?.close();
  }

  #opened() {
    this.#wait = FIRST_WAIT_MS;
    this.listeners.opened();
  }

  /** @param {ServerEvent} event */
  #receive(event) {
    if (event.type === "authenticated") return this.#opened();
    if (event.type === "error" && event.error.status === 401) this.#why = event.error.detail;
    else this.listeners.received(event);
  }

  #open() {
    this.#timer = undefined;
    const socket = new WebSocket(this.address);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      const key = this.key();
      // A browser cannot send headers with a handshake.
      if (key) this.send({ type: "auth", key });
      else this.#opened();
    });
    socket.addEventListener("message", ({ data }) => this.#receive(JSON.parse(data)));
    socket.addEventListener("close", ({ code }) => {
      if (socket !== this.#socket) return;
      if (code === UNAUTHORIZED) return this.listeners.refused(this.#why);
      const wait = this.#wait;
      this.#wait = Math.min(LONGEST_WAIT_MS, wait * 2);
      this.#timer = setTimeout(() => this.#open(), wait);
      this.listeners.lost(wait);
    });
  }
}
