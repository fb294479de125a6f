/**
 * Tensors of texts in the Open Inference Protocol. A tensor is part of the JSON, or comes after it as bytes
 * (Triton's extension binary_tensor_data): each text as its length in four bytes, least first, and its UTF-8.
 */

import { isUtf8 } from "node:buffer";
import { invalid } from "../../errors.ts";

/** Header with the number of bytes of the JSON that binary tensors follow. */
export const JSON_LENGTH = "inference-header-content-length";

/** Bytes of the length before each text. */
const PREFIX = 4;

/**
 * Return the texts of a binary tensor. `path` is where the tensor is named in the JSON. Throws
 * InvalidRequestError.
 */
function textsOf(bytes: Buffer, path: string): string[] {
  const texts: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const start = at + PREFIX;
    const end = start <= bytes.length ? start + bytes.readUInt32LE(at) : Number.POSITIVE_INFINITY;
    if (end > bytes.length)
      throw invalid(path, `is cut off: text ${texts.length}, at byte ${at} of ${bytes.length}, has no end`);
    const text = bytes.subarray(start, end);
    if (!isUtf8(text)) throw invalid(path, `is not UTF-8 in text ${texts.length}: encode it as UTF-8`);
    texts.push(text.toString());
    at = end;
  }
  return texts;
}

/** Return the bytes of a tensor of texts. */
export function bytesOf(texts: readonly string[]): Buffer {
  return Buffer.concat(
    texts.flatMap((text) => {
      const bytes = Buffer.from(text);
      const length = Buffer.alloc(PREFIX);
      length.writeUInt32LE(bytes.length);
      return [length, bytes];
    }),
  );
}

/** A tensor as far as its bytes are concerned. The JSON is not checked yet. */
interface BinaryTensor {
  parameters?: { binary_data_size?: unknown };
  data?: string[];
}

/**
 * Return where a body ends its JSON: at the number of bytes that the header says. Throws InvalidRequestError.
 */
export function jsonEnd(header: string | string[] | undefined, body: Buffer): number {
  if (header === undefined) return body.length;
  const length = /^\d{1,10}$/.test(String(header)) ? Number(header) : Number.NaN;
  if (length <= body.length) return length;
  throw invalid(
    "/headers/Inference-Header-Content-Length",
    `must be the number of bytes of the JSON, at most the ${body.length} of the body, and is ${header}`,
  );
}

/** Put the texts of binary tensors into the JSON that names them. Throws InvalidRequestError. */
export function fillTensors(json: unknown, bytes: Buffer): void {
  const inputs = (json as { inputs?: unknown } | null)?.inputs;
  let at = 0;
  for (const [i, tensor] of (Array.isArray(inputs) ? (inputs as (BinaryTensor | null)[]) : []).entries()) {
    const size = tensor?.parameters?.binary_data_size;
    if (!tensor || !Number.isSafeInteger(size) || (size as number) < 0) continue;
    const end = at + (size as number);
    const path = `/inputs/${i}/parameters/binary_data_size`;
    if (end > bytes.length)
      throw invalid(path, `must be at most ${bytes.length - at}, the bytes that are left, and is ${size}`);
    tensor.data = textsOf(bytes.subarray(at, end), `/inputs/${i}`);
    at = end;
  }
  if (at < bytes.length)
    throw invalid("/inputs", `name ${at} bytes of binary data, and ${bytes.length} bytes follow the JSON`);
}
