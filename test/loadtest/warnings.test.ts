import assert from "node:assert/strict";
import { test } from "node:test";
import { spread } from "../../loadtest/report/summary.ts";
import type { Cell } from "../../loadtest/report/types.ts";
import { warningsOf } from "../../loadtest/report/warnings.ts";
import { closed, measured } from "./support.ts";

const STEADY = [1000, 1010, 990];

/** Return a cell with this use of cores by client and server. */
function using(client: number, server: number): Cell {
  const cell = measured(closed(4), STEADY);
  cell.summary.figures.client_cpu_cores = spread([client]);
  cell.summary.figures.server_cpu_cores = spread([server]);
  for (const measurement of cell.measurements)
    measurement.server = { cpu_cores: server, rss_bytes: 1, of: "processes" };
  return cell;
}

test("a steady cell on an idle machine has no warning", () => {
  assert.deepEqual(warningsOf([measured(closed(4), STEADY), using(0.1, 1.8)], 2), []);
});

test("a client at its limit and a client that takes time from the server have different warnings", () => {
  assert.match(warningsOf([using(0.95, 1)], 8)[0]!, /client used more than 0\.8 of a core.*4 steps/);
  assert.match(warningsOf([using(0.6, 1.3)], 2)[0]!, /Client and server filled the machine/);
  assert.deepEqual(warningsOf([using(0.6, 1.3)], 4), []);
});

test("errors, differing repeats, other programs and a slow machine have warnings", () => {
  const said = (cell: Cell) => warningsOf([cell], 2).join("\n");
  assert.match(said(measured(closed(4), STEADY, { timeout: 2 })), /Errors in .*2 x timeout/);
  assert.match(said(measured(closed(4), [500, 1000, 1000])), /differed by more than 40%/);
  const disturbed = measured(closed(4), STEADY);
  disturbed.measurements[1]!.other_cpu_cores = 1.5;
  assert.match(said(disturbed), /more than 0\.25 of a core in 1 of 3 measurements, up to 1\.5 cores/);
  const slow = measured(closed(4), STEADY);
  slow.measurements[2]!.machine_speed = 400;
  assert.match(said(slow), /fell to 40% of its median/);
});
