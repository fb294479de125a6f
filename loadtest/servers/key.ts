/** The key of a server that asks for one: from the environment alone, so that no list of processes and no result shows it. */

/** Headers to send with every request to the server under test. */
export function keyHeaders(): Record<string, string> {
  const key = process.env.DIDI_API_KEY;
  return key ? { authorization: `Bearer ${key}` } : {};
}
