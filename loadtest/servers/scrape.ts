/** Reads a server's metrics. */

/** Return every sample of /metrics by name, with its labels as written. Reject without an answer. */
export async function scrape(
  origin: string,
  headers: Record<string, string> = {},
): Promise<Map<string, number>> {
  const response = await fetch(`${origin}/metrics`, { headers, signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`${origin}/metrics answers with ${response.status}`);
  const samples = new Map<string, number>();
  for (const line of (await response.text()).split("\n")) {
    const [, name, value] = /^([^#\s{]+(?:\{.*\})?) (\S+)/.exec(line) ?? [];
    if (name) samples.set(name, Number(value));
  }
  return samples;
}
