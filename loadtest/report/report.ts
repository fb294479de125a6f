/** The report of a run in Markdown. */

import { ratios } from "../traffic/statistics.ts";
import { besides, clientsOf, plainCells, SERVER } from "./select.ts";
import { spread } from "./summary.ts";
import { short, showKnee, showQuantiles, showSpread, table } from "./table.ts";
import type { Cell, Results, Shape } from "./types.ts";

const TRANSPORTS: Record<Cell["transport"], string> = {
  post: "POST",
  sse: "SSE",
  ws: "WebSocket",
  none: "-",
};
const figure = (cell: Cell, name: string, scale = 1) => showSpread(cell.summary.figures[name], scale);
const guided = ({ guidance }: Shape) => (guidance === "rgas" ? "rgas" : "");

function closedTables(results: Results): string[] {
  const cells = plainCells(results);
  if (cells.length === 0) return [];
  const key = (cell: Cell) => {
    const shape = cell.shapes[0]!;
    return [
      TRANSPORTS[cell.transport],
      `${shape.steps}`,
      guided(shape),
      `${shape.length}`,
      `${clientsOf(cell)}`,
    ];
  };
  const keys = ["transport", "steps", "guided", "tokens", "clients"];
  const passes = (cell: Cell) =>
    ["student", "discriminator", "gradient"].map((kind) => figure(cell, `${kind}_passes_per_second`));
  return [
    "## Closed loop\n\nEach client sends its next request when the last one has been answered.\n" +
      "Median over the repeats (lowest to highest); latencies over all repeats.",
    table(
      [...keys, "requests/s", "tokens/s", "latency p50 / p90 / p99 / max, ms", "requests"],
      cells.map((cell) => [
        ...key(cell),
        figure(cell, "requests_per_second"),
        figure(cell, "tokens_per_second"),
        showQuantiles(cell.summary.times_ms.latency),
        `${cell.summary.times_ms.latency?.count ?? 0}`,
      ]),
    ),
    "### Work of the server",
    table(
      [
        ...keys,
        "student passes/s",
        "discriminator",
        "gradient",
        "rows a batch",
        "model busy",
        "queue p50 / p90 / p99 / max, ms",
      ],
      cells.map((cell) => [
        ...key(cell),
        ...passes(cell),
        figure(cell, "batch_rows"),
        figure(cell, "batch_busy"),
        showQuantiles(cell.summary.times_ms.queue),
      ]),
    ),
    "### Processor time and memory",
    table(
      [...keys, "server, cores", "server, MB", "client, cores", "others, cores", "errors"],
      cells.map((cell) => [
        ...key(cell),
        figure(cell, "server_cpu_cores"),
        figure(cell, "server_rss_bytes", 1e6),
        figure(cell, "client_cpu_cores"),
        figure(cell, "other_cpu_cores"),
        showErrors(cell.summary.errors),
      ]),
    ),
  ];
}

const showErrors = (errors: Record<string, number>) =>
  Object.entries(errors)
    .map(([kind, count]) => `${count} x ${kind}`)
    .join(", ") || "0";

function streamTable(results: Results): string[] {
  const cells = results.cells.filter(({ summary }) => summary.times_ms.first_step);
  if (cells.length === 0) return [];
  return [
    "## Streams\n\nMilliseconds, p50 / p90 / p99 / max.",
    table(
      ["cell", "to the first step", "between steps", "to the end"],
      cells.map(({ id, summary }) => [
        id.replace(`${SERVER} | `, ""),
        showQuantiles(summary.times_ms.first_step),
        showQuantiles(summary.times_ms.step_gap),
        showQuantiles(summary.times_ms.latency),
      ]),
    ),
  ];
}

function mixTable(results: Results): string[] {
  const cells = results.cells.filter(({ summary }) => summary.shapes);
  if (cells.length === 0) return [];
  return [
    "## Mixed traffic\n\nLatency of each shape in milliseconds.",
    table(
      ["cell", "shape", "weight", "requests", "p50 / p90 / p99 / max"],
      cells.flatMap((cell) =>
        cell.shapes.map((shape) => {
          const times = cell.summary.shapes![shape.name]?.latency;
          const steps = `${shape.name} (${shape.steps} steps, ${shape.length} tokens)`;
          const id = cell.id.replace(`${SERVER} | `, "");
          return [id, steps, `${shape.weight}`, `${times?.count ?? 0}`, showQuantiles(times)];
        }),
      ),
    ),
  ];
}

function openTables(results: Results): string[] {
  const limit = results.settings.p99_limit_ms;
  const cells = results.cells.filter(({ load }) => load.kind === "open");
  if (cells.length === 0) return [];
  const kept = ({ measurements }: Cell) =>
    `${measurements.filter((m) => m.kept_up).length} of ${measurements.length}`;
  return [
    "## Open loop\n\nPoisson arrivals; latency counts from the intended time of sending. " +
      `Requests a second at p99 under ${limit} ms: the highest tried rate that held, in each repeat.`,
    table(
      ["budget", "requests/s", ""],
      results.knees.map(({ shape, requests_per_second, reached }) => [
        shape.name,
        showKnee(requests_per_second),
        reached ? "" : "not every repeat tried a higher rate: the true value may be higher",
      ]),
    ),
    table(
      [
        "budget",
        "rate, requests/s",
        "latency p50 / p90 / p99 / max, ms",
        "requests",
        "kept up",
        "sent late, p99 ms",
        "errors",
      ],
      cells.map((cell) => [
        cell.shapes.map(({ name }) => name).join(" + "),
        cell.load.kind === "open" ? short(cell.load.rate) : "",
        showQuantiles(cell.summary.times_ms.latency),
        `${cell.summary.times_ms.latency?.count ?? 0}`,
        kept(cell),
        short(cell.summary.times_ms.send_lag?.p99 ?? 0),
        showErrors(cell.summary.errors),
      ]),
    ),
  ];
}

/** Return server over peer for each repeat, in which both were measured within a short time. */
function peerRatios(server: Cell, peer: Cell): number[] {
  const of = new Map(peer.measurements.map((m) => [m.repeat, m.tokens_per_second]));
  const both = server.measurements.filter((m) => of.has(m.repeat));
  return ratios(
    both.map((m) => m.tokens_per_second),
    both.map((m) => of.get(m.repeat)!),
  );
}

/** Return the table of the server and its peers; undefined if none was measured. */
export function peerTable(results: Results): string | undefined {
  const rows = results.sides
    .filter(({ name }) => name !== SERVER)
    .flatMap((side) =>
      plainCells(results, side.name).flatMap((peer) =>
        besides(results, peer)
          .map((server) => ({ server, times: peerRatios(server, peer) }))
          .filter(({ times }) => times.length > 0)
          .map(({ server, times }) => [
            side.title,
            `${server.shapes[0]!.steps}`,
            `${server.shapes[0]!.length}`,
            `${clientsOf(server)}`,
            figure(server, "tokens_per_second"),
            figure(peer, "tokens_per_second"),
            showSpread(spread(times)),
          ]),
      ),
    );
  if (rows.length === 0) return undefined;
  return table(
    ["peer", "steps", "tokens", "clients", "server, tokens/s", "peer, tokens/s", "server / peer"],
    rows,
  );
}

function peerSection(results: Results): string[] {
  const peers = results.sides.filter(({ name }) => name !== SERVER);
  if (peers.length === 0) return [];
  const rows = peerTable(results);
  return [
    "## Peers\n\nMeasured alternately with the server. A ratio compares two measurements of one repeat; " +
      "below 1 the server is slower.",
    ...(rows ? [rows] : []),
    ...peers.map(({ title, settings, left_out }) => {
      const said = Object.entries(settings).map(([name, value]) => `${name} ${value}`);
      return `- ${title}: ${left_out ? `left out: ${left_out}` : said.join(";\n  ")}`;
    }),
  ];
}

/** Return the report, with links to the pictures of these names in its folder. */
export function report(results: Results, pictures: readonly string[]): string {
  const { environment: e, settings, model, complete, left_out } = results;
  const versions = Object.entries(e.versions).map(([name, version]) => `${name} ${version}`);
  const server = results.sides.find(({ name }) => name === SERVER)!;
  const said = Object.entries(server.settings).map(([name, value]) => `${name} ${value}`);
  return `${[
    `# Load test of ${model.name}`,
    [
      `- ${results.started}, ${Math.round(results.seconds)} s`,
      `- ${settings.repeats} interleaved repeats, seed ${settings.seed}`,
      `- \`npm run loadtest -- ${settings.flags.join(" ")}\``,
      `- ${e.cores} x ${e.cpu}, ${Math.round(e.memory_bytes / 1e9)} GB, ${e.platform}`,
      `- ${versions.join(", ")}${e.commit ? `, commit ${e.commit}` : ""}`,
      `- ${model.name}: ${model.parameters.toLocaleString("en")} parameters, context ${model.context_length}`,
      `- server: ${said.join("; ")}`,
      ...(complete ? [] : [`- **not complete**: ${left_out} planned measurements are missing`]),
    ].join("\n"),
    ...(results.warnings.length > 0
      ? [`## Warnings\n\n${results.warnings.map((warning) => `- ${warning}`).join("\n")}`]
      : []),
    ...(pictures.length > 0 ? [pictures.map((name) => `![${alt(name)}](${name})`).join("\n\n")] : []),
    ...closedTables(results),
    ...streamTable(results),
    ...mixTable(results),
    ...openTables(results),
    ...peerSection(results),
    "What each figure means: docs/load-testing.md.",
  ].join("\n\n")}\n`;
}

const alt = (file: string) => {
  const [what, over] = file.replace(/\.svg$/, "").split("-");
  return `${what![0]!.toUpperCase()}${what!.slice(1)} against ${over}`;
};
