/**
 * POST over kept-alive connections. Node's fetch needs twice the processor time, which the server would lack.
 */

import http, { type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import https from "node:https";
import { text } from "node:stream/consumers";
import { Fault } from "./fault.ts";

/** Headers of a request, and the signal that aborts it. */
export interface PostOptions {
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** An answer with its whole body. */
export interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

const agents = {
  http: new http.Agent({ keepAlive: true }),
  https: new https.Agent({ keepAlive: true }),
};

/** Return headers with the key in DIDI_API_KEY; a flag would be visible in process lists and results. */
export function keyHeaders(): Record<string, string> {
  const key = process.env.DIDI_API_KEY;
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** Return the reason of an aborted signal, or a fault of the connection. */
const failure = (error: Error, signal?: AbortSignal): unknown =>
  signal?.aborted ? signal.reason : new Fault("connection", error.message);

/**
 * Send JSON; resolve with the head of the answer. Rejects with the signal's reason, or with Fault
 * "connection".
 */
export function open(
  url: string,
  body: object,
  { headers, signal }: PostOptions = {},
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const secure = url.startsWith("https:");
    const options = {
      method: "POST",
      agent: secure ? agents.https : agents.http,
      headers: { "content-type": "application/json", ...headers },
      ...(signal && { signal }),
    };
    const request = secure ? https.request(url, options, resolve) : http.request(url, options, resolve);
    request.once("error", (error) => reject(failure(error, signal))).end(JSON.stringify(body));
  });
}

/** Send JSON; resolve with the whole answer, whatever its status. Rejects as `open` does. */
export async function post(url: string, body: object, options: PostOptions = {}): Promise<Reply> {
  const response = await open(url, body, options);
  const read = await text(response).catch((error: Error) => {
    throw failure(error, options.signal);
  });
  return { status: response.statusCode!, headers: response.headers, body: read };
}
