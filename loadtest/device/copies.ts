/** Count what is copied between host and device at each call: the inputs and outputs of the graph. */

import ort from "onnxruntime-node";
import type { Model } from "../../src/model/model.ts";
import type { Batch } from "../../src/runtime/protocol.ts";
import { feedsOf } from "../../src/runtime/worker/session.ts";
import { guidedBatches, plainBatch, rowsOf } from "./batches.ts";

/** Tensors and bytes that a call copies to the device and back. */
export interface Copies {
  graph: string;
  rows: number;
  in: { tensors: number; bytes: number };
  out: { tensors: number; bytes: number };
}

/** Return the bytes of the tensors of a call. */
function sum(tensors: readonly ort.Tensor[]): Copies["in"] {
  const bytes = tensors.reduce((total, { data }) => total + (data as Float32Array).byteLength, 0);
  return { tensors: tensors.length, bytes };
}

/** Run each graph once on the CPU, which has the same inputs and outputs, and count. */
export async function countCopies(model: Model, length: number, rows: number): Promise<Copies[]> {
  const guided = model.graphs.cpu.tilt ? guidedBatches(model, length, rows) : [];
  const batches: Batch[] = [plainBatch(rowsOf(model, length, rows)), ...guided];
  const copies: Copies[] = [];
  for (const batch of batches) {
    // Without optimisation the graph loads soonest.
    const session = await ort.InferenceSession.create(model.graphs.cpu[batch.graph]!, {
      graphOptimizationLevel: "disabled",
    });
    const feeds = feedsOf(session, batch);
    const outputs = await session.run(feeds);
    copies.push({
      graph: batch.graph,
      rows,
      in: sum(Object.values(feeds)),
      out: sum(Object.values(outputs)),
    });
    await session.release();
  }
  return copies;
}

/** Return the counts in one line. */
export const sayCopies = (copies: readonly Copies[]): string =>
  copies
    .map((one) => {
      const say = ({ tensors, bytes }: Copies["in"]) => `${tensors} tensors of ${bytes} bytes`;
      return `${one.graph} of ${one.rows} rows: in ${say(one.in)}, out ${say(one.out)}`;
    })
    .join("; ");
