/**
 * JSON from clients, with bounded work: a megabyte takes a millisecond to read as text, and a tenth of a second where it
 * is a hundred thousand fields or lists within lists. No request needs many of either.
 */

import { setImmediate as nextTurn } from "node:timers/promises";
import { InvalidRequestError } from "../errors.ts";

/** Texts, lists and objects of one request. The largest that is of use has some eighty. */
const MOST_PARTS = 1000;

/** Values of one request, in lists and objects: enough for the tokens of sixteen prompts of 8,192. */
const MOST_VALUES = 1 << 17;

/** Bytes from which a text is read in a turn of the event loop of its own. */
const LARGE = 16 * 1024;

const [QUOTE, BACKSLASH, OBJECT, LIST, COMMA] = ['"', "\\", "{", "[", ","].map((one) => one.charCodeAt(0));

/** Throw InvalidRequestError if a JSON text has more parts or values than a request may have. It need not be JSON. */
function checkParts(data: Buffer): void {
  let parts = 0;
  let values = 0;
  for (let i = 0; i < data.length; i++) {
    const byte = data[i];
    if (byte === COMMA && ++values > MOST_VALUES) throw tooMany(MOST_VALUES, "values");
    if (byte === QUOTE) {
      // To the end of the text; what stands after a backslash does not end it.
      for (i++; i < data.length && data[i] !== QUOTE; i++) if (data[i] === BACKSLASH) i++;
    } else if (byte !== OBJECT && byte !== LIST) continue;
    if (++parts > MOST_PARTS) throw tooMany(MOST_PARTS, "fields, texts and lists");
  }
}

const tooMany = (most: number, what: string) =>
  new InvalidRequestError([{ path: "", message: `has more than ${most} ${what}: no request needs as many` }]);

/**
 * Return what a client's text holds. Throw InvalidRequestError if reading it would take long, and what JSON.parse throws
 * if it is not JSON.
 */
export function parseJson(data: Buffer, parse: (text: string) => unknown = JSON.parse): unknown {
  checkParts(data);
  return parse(data.toString());
}

let last: Promise<void> = Promise.resolve();

/**
 * Resolve in a later turn of the event loop: for a large text of `bytes` in one that no other large text has, so that a
 * hundred that arrive at once do not stand before everybody else.
 */
export function turn(bytes: number): Promise<void> {
  if (bytes < LARGE) return nextTurn();
  last = last.then(() => nextTurn());
  return last;
}
