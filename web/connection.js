/** The WebSocket to the server, reopened with increasing delays when it is lost. */

/** @typedef {import("./form/request.js").Schemas["ServerEvent"]} ServerEvent */
/** @typedef {import("./run/run.js").ServerEvent} RunEvent */

/** First and longest delay before a reconnection, milliseconds. */
const [FIRST_WAIT_MS, LONGEST_WAIT_MS] = [500, 8000];

/** Close code of a socket without a valid key. */
const UNAUTHORIZED = 4401;

/**
 * @typedef {object} Listeners
 * @property {() => void} opened
 * @property {(event: RunEvent) => void} received
 * @property {(why: string) => void} refused The server requires a valid key: call `reopen` with one.
 * @property {(waitMs: number) => void} lost The next reconnection is after `waitMs`.
 */

/** A connection that reconnects. */
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

  /** Send a message; return false if the connection is not open. @param {unknown} message */
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Reconnect at once instead of waiting. */
  retry() {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#open();
  }

  /** Open the connection again with the current key. */
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
