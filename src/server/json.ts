/**
 * JSON from clients, read with bounded work: a megabyte of plain text takes a millisecond to read, and a
 * tenth of a second if it holds a hundred thousand fields or nested lists. No request needs many of either.
 */

import { isUtf8 } from "node:buffer";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { fieldPath, invalid } from "../errors.ts";

/** Most strings, lists and objects of one request. The largest useful request has some eighty. */
const MOST_PARTS = 1000;

/** Most values of one request, in lists and objects: enough for the tokens of sixteen prompts of 8,192. */
const MOST_VALUES = 1 << 17;

/** Bytes from which a message is read in a turn of the event loop of its own. */
const LARGE = 16 * 1024;

const [QUOTE, BACKSLASH, OBJECT, LIST, COMMA] = ['"', "\\", "{", "[", ","].map((one) => one.charCodeAt(0));

/**
 * Throw InvalidRequestError if bytes that should be JSON have more parts or values than a request may have.
 */
function checkParts(data: Buffer): void {
  let parts = 0;
  let values = 0;
  for (let i = 0; i < data.length; i++) {
    const byte = data[i];
    if (byte === COMMA && ++values > MOST_VALUES) throw tooMany(MOST_VALUES, "values");
    if (byte === QUOTE) {
      // Move to the end of the string; a quote after a backslash does not end it.
      for (i++; i < data.length && data[i] !== QUOTE; i++) if (data[i] === BACKSLASH) i++;
    } else if (byte !== OBJECT && byte !== LIST) continue;
    if (++parts > MOST_PARTS) throw tooMany(MOST_PARTS, "fields, texts and lists");
  }
}

const tooMany = (most: number, what: string) =>
  invalid("", `has more than ${most} ${what}: no request needs as many`);

/** Throw InvalidRequestError with the position of the first byte that is not UTF-8. */
function checkEncoding(data: Buffer): void {
  if (isUtf8(data)) return;
  // The replacement characters of a lenient reading differ from the bytes where the first fault is.
  const lenient = Buffer.from(data.toString());
  let at = 0;
  while (data[at] === lenient[at]) at++;
  const byte = data[at]?.toString(16).padStart(2, "0");
  const fault =
    byte === undefined ? "the last character is cut off" : `byte 0x${byte} belongs to no character`;
  throw invalid("", `is not UTF-8: ${fault}, at position ${at}: encode it as UTF-8`);
}

/** An escape of one half of a surrogate pair; UTF-8 cannot hold one unescaped. */
const HALF = /\\u[dD][89a-fA-F]/;

/** Throw InvalidRequestError if a string or a name inside `value` holds one half of a surrogate pair. */
function checkCharacters(value: unknown, path = ""): void {
  if (typeof value === "string") {
    if (value.isWellFormed()) return;
    const whole = value.toWellFormed();
    let at = 0;
    while (value[at] === whole[at]) at++;
    const code = value.charCodeAt(at).toString(16);
    const position = Array.from(value.slice(0, at)).length;
    throw invalid(
      path,
      `holds \\u${code}, one half of a character, at character ${position}: ` +
        "send both halves, or leave it out",
    );
  }
  if (typeof value !== "object" || value === null) return;
  for (const [name, inner] of Object.entries(value)) {
    if (!name.isWellFormed()) throw invalid(path, "has a name that holds one half of a character");
    checkCharacters(inner, fieldPath(path, name));
  }
}

/** Return a client's bytes without a byte order mark. */
function withoutMark(data: Buffer): Buffer {
  return data[0] === 0xef && data[1] === 0xbb && data[2] === 0xbf ? data.subarray(3) : data;
}

/**
 * Return the value that a client's bytes hold. A byte order mark is skipped. Throws InvalidRequestError if
 * reading them would take long, if they are not UTF-8, or if a string holds half a character; throws what
 * JSON.parse throws if they are not JSON.
 */
export function parseJson(data: Buffer, parse: (text: string) => unknown = JSON.parse): unknown {
  checkEncoding(data);
  const bytes = withoutMark(data);
  checkParts(bytes);
  const text = bytes.toString();
  const value = parse(text);
  if (HALF.test(text)) checkCharacters(value);
  return value;
}

let last: Promise<void> = Promise.resolve();

/**
 * Resolve in a later turn of the event loop. A large message of `bytes` gets a turn that no other large
 * message has, so that a hundred that arrive at once do not delay every other request.
 */
export function turn(bytes: number): Promise<void> {
  if (bytes < LARGE) return nextTurn();
  last = last.then(() => nextTurn());
  return last;
}

/**
 * Return an error of Fastify's reader with the message of JSON.parse, which names the place, if that fails
 * too.
 */
function located(error: Error, text: string): Error {
  try {
    JSON.parse(text);
  } catch (fault) {
    return Object.assign(error, { message: (fault as SyntaxError).message });
  }
  return error;
}

/** Return the reader of JSON bodies for a content type parser of `app`. */
export function jsonReader(
  app: FastifyInstance,
): (request: FastifyRequest, body: Buffer) => Promise<unknown> {
  const parse = app.getDefaultJsonParser("error", "error");
  return async (request, body) => {
    await turn(body.length);
    return parseJson(body, (text) => {
      let parsed: unknown;
      // Calls back before it returns.
      parse(request, text, (error, value) => {
        if (error) throw text === "" ? error : located(error, text);
        parsed = value;
      });
      return parsed;
    });
  };
}
