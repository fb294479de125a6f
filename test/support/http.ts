/** Requests of tests, and event streams. */

/** Post JSON, or a text as it is. */
export const post = (
  url: string,
  body: object | string,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
): Promise<Response> =>
  fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...(signal && { signal }),
  });

/** Return the data of each event in the text of a stream. */
export const dataOf = (text: string): string[] =>
  Array.from(text.matchAll(/^data: (.*)$/gm), ([, data]) => data!);
