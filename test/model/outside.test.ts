/** Models that refer to files outside their folder. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import ort from "onnxruntime-node";
import { StartupError } from "../../src/errors.ts";
import { openModel } from "../../src/model/model.ts";
import { checkExternalData } from "../../src/model/onnx.ts";
import { TINY_STUDENT } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";

const root = scratch("outside");
const folder = join(root, "copy");
beforeEach(async () => {
  await rm(folder, { recursive: true, force: true });
  await cp(TINY_STUDENT, folder, { recursive: true });
});

const refuses = (opened: Promise<unknown>, says: RegExp) =>
  assert.rejects(opened, (error) => {
    assert.ok(error instanceof StartupError);
    assert.equal(error.exitCode, 1);
    assert.match(error.message, says);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });

async function editManifest(edit: (manifest: Record<string, never>) => void): Promise<void> {
  const path = join(folder, "model.json");
  const manifest = JSON.parse(await readFile(path, "utf8"));
  edit(manifest);
  await writeFile(path, JSON.stringify(manifest));
}

for (const file of [
  "../tokenizer.json",
  "/etc/passwd",
  "sub/tokenizer.json",
  "..",
  "..\\tokenizer.json",
  "a/../../b",
])
  test(`a manifest that names ${file} is refused`, async () => {
    await editManifest((manifest) => Object.assign(manifest.tokenizer!, { file }));
    await refuses(
      openModel(folder),
      /\/tokenizer\/file must be the name of a file in the folder, not a path/,
    );
  });

test("a link out of the folder is refused; links inside it and to the folder itself are not", async () => {
  const tokenizer = join(folder, "tokenizer.json");
  await rename(tokenizer, join(folder, "real.json"));
  await symlink("real.json", tokenizer);
  await openModel(folder);
  await symlink(folder, join(root, "alias"));
  await openModel(join(root, "alias"));
  await rename(join(folder, "real.json"), join(root, "outside.json"));
  await rm(tokenizer);
  await symlink(join(root, "outside.json"), tokenizer);
  await refuses(openModel(folder), /tokenizer\.json is a link to .*outside\.json, outside the folder/);
});

const WEIGHTS = "weights.fp16.safetensors";

/** Paths as long as WEIGHTS, so that no length in the file changes. */
const PLACES: [location: string, says: RegExp][] = [
  ["../weights16.safetensors", /denoise\.fp32\.onnx reads "\.\.\/weights16\.saf.*", which is outside/],
  ["/data/weight.safetensors", /reads "\/data\/weight\.safetensors", which is outside/],
  ["x/../../wght.safetensors", /reads "x\/\.\.\/\.\.\/wght\.safetensors", which is outside/],
  ["others0.fp32.safetensors", /reads "others0\.fp32\.saf.*", which model\.json does not name under weights/],
];

for (const [location, says] of PLACES)
  test(`a graph whose weights lie in ${location} is refused`, async () => {
    const path = join(folder, "denoise.fp32.onnx");
    const bytes = await readFile(path);
    const at = bytes.lastIndexOf(WEIGHTS);
    assert.ok(at > 0 && location.length === WEIGHTS.length);
    bytes.write(location, at);
    await writeFile(path, bytes);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    await editManifest((manifest) =>
      Object.assign((manifest.graphs as unknown as Record<string, Record<string, object>>).denoise!.fp32!, {
        sha256,
      }),
    );
    await refuses(openModel(folder, "fp32"), says);
  });

/** Return a length-delimited field of a protobuf message. */
const field = (number: number, ...content: (Buffer | string)[]): Buffer => {
  const bytes = Buffer.concat(content.map((part) => Buffer.from(part as string)));
  assert.ok(bytes.length < 1 << 14);
  return Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
};
const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, value >> 7]);

const tensor = (location: string) => [
  // dims, data_type and a name, as tensors have.
  Buffer.from([8, 3, 16, 1]),
  field(8, "w"),
  field(13, field(1, "location"), field(2, location)),
  field(13, field(1, "offset"), field(2, "0")),
];

/** Where a tensor can be in a model, with the location that it names. */
const HIDING: Record<string, (location: string) => Buffer> = {
  "an initializer": (at) => field(7, field(5, ...tensor(at))),
  "a sparse initializer": (at) => field(7, field(15, field(1, ...tensor(at)))),
  "an attribute": (at) => field(7, field(1, field(5, field(5, ...tensor(at))))),
  "a list of tensors": (at) => field(7, field(1, field(5, field(10, ...tensor(at))))),
  "a branch": (at) => field(7, field(1, field(5, field(6, field(5, ...tensor(at)))))),
  "a branch of a branch": (at) =>
    field(7, field(1, field(5, field(11, field(1, field(5, field(6, field(5, ...tensor(at))))))))),
  "a function": (at) => field(25, field(7, field(5, field(5, ...tensor(at))))),
  "training information": (at) => field(20, field(1, field(5, ...tensor(at)))),
};

const entry = { file: "made.onnx", sha256: "", bytes: 0 };
const check = async (bytes: Buffer, data?: string) => {
  await writeFile(join(folder, entry.file), bytes);
  return checkExternalData(folder, entry, data === undefined ? [] : [{ ...entry, file: data }]);
};

for (const [where, make] of Object.entries(HIDING))
  test(`a place outside in ${where} is found`, async () => {
    const model = (location: string) =>
      Buffer.concat([Buffer.from([8, 8]), field(2, "made"), make(location)]);
    await refuses(check(model("../x"), "x"), /reads "\.\.\/x", which is outside/);
    await refuses(check(model("x")), /which model\.json does not name/);
    await check(model("x"), "x");
    for (const other of ["./x", "sub/../x", "sub//../x", "x/", "x\0", " x", "X"])
      await refuses(check(model(other), "x"), /reads "/);
  });

/** Return a varint, padded to a length that no writer uses. */
const overlong = (value: number, length: number): Buffer => {
  const bytes = Array.from(
    { length },
    (_, i) => (Math.floor(value / 128 ** i) % 128) | (i < length - 1 ? 128 : 0),
  );
  return Buffer.from(bytes);
};

test("a tag or a length that parsers may read differently is refused", async () => {
  const hidden = field(5, ...tensor("../x"));
  const lengthOf = (content: Buffer) => Buffer.from(varint(content.length));
  const tag = 7 * 8 + 2;
  for (const head of [
    overlong(tag, 2),
    overlong(tag, 5),
    // Bit 32 of five bytes, which a parser of 32 bits drops.
    overlong(tag + 2 ** 32, 5),
    overlong(tag + 2 ** 33, 6),
    overlong(tag, 10),
  ])
    await refuses(
      check(Buffer.concat([head, lengthOf(hidden), hidden]), "x"),
      /made\.onnx is not an ONNX graph/,
    );
  const long = Buffer.concat([Buffer.from([tag]), overlong(hidden.length, 5), hidden]);
  await refuses(check(long, "x"), /made\.onnx is not an ONNX graph/);
  // A field without a number.
  await refuses(check(Buffer.from([2, 1, 0])), /made\.onnx is not an ONNX graph/);
});

test("a graph in ONNX Runtime's own format is refused", () =>
  refuses(checkExternalData(folder, { ...entry, file: "made.ort" }, []), /must not end in \.ort/));

test("the installed ONNX Runtime refuses paths outside the folder itself", async () => {
  const bytes = await readFile(join(folder, "denoise.fp32.onnx"));
  const weights = join(folder, WEIGHTS);
  await mkdir(join(root, "away", "deep"), { recursive: true });
  const long = `${root}/away`.padEnd(WEIGHTS.length, "/");
  const outside = [
    "../weights16.safetensors",
    long.slice(0, WEIGHTS.length),
    "linked0.fp32.safetensors",
    "subd/../abcdefg.filename",
  ];
  assert.ok(outside.every(({ length }) => length === WEIGHTS.length));
  await cp(weights, join(root, "weights16.safetensors"));
  await cp(weights, join(root, "away", "abcdefg.filename"));
  await symlink(join(root, "weights16.safetensors"), join(folder, "linked0.fp32.safetensors"));
  await symlink(join(root, "away", "deep"), join(folder, "subd"));
  await rm(weights);
  for (const location of outside) {
    const file = join(folder, "moved.onnx");
    await writeFile(file, bytes.toString("latin1").replaceAll(WEIGHTS, location), "latin1");
    await assert.rejects(
      ort.InferenceSession.create(file, { logSeverityLevel: 4 }),
      /[Ee]xternal data/,
      location,
    );
  }
});

test("bytes that are not protobuf, or nested without end, are refused", async () => {
  for (const bytes of [[0x3a, 0x7f], [0x3b], [0xff], [0x08], new Array(12).fill(0xff)])
    await refuses(check(Buffer.from(bytes)), /made\.onnx is not an ONNX graph/);
  let graph: Buffer = Buffer.alloc(0);
  for (let i = 0; i < 120; i++) graph = field(1, field(5, field(6, graph)));
  await refuses(check(field(7, graph)), /is not an ONNX graph/);
  await check(Buffer.alloc(0));
});
