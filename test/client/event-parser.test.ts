import assert from "node:assert/strict";
import { test } from "node:test";
import { EventParser, type Message } from "../../src/client/event-parser.ts";

const STREAM = [
  "retry: 1000\n\n: still here\n\n",
  "event: step\nid: 7:1\ndata: {}\n\n",
  "data: a\ndata:b\ndata:  c\ndata\n\n",
  "id\ndata: x:y\nunknown: 1\n\n",
].join("");
const MESSAGES: Message[] = [
  { id: "7:1", data: "{}" },
  { id: undefined, data: "a\nb\n c\n" },
  { id: "", data: "x:y" },
];

for (const [name, end] of Object.entries({ LF: "\n", CR: "\r", "CR LF": "\r\n" }))
  test(`lines may end with ${name}, and pieces anywhere`, () => {
    // A CR at the end may be half of a CR LF; the next line decides.
    const text = `${STREAM}: end\n`.replaceAll("\n", end);
    for (let size = 1; size <= text.length; size++) {
      const parser = new EventParser();
      const messages: Message[] = [];
      for (let at = 0; at < text.length; at += size) messages.push(...parser.push(text.slice(at, at + size)));
      assert.deepEqual(messages, MESSAGES, `pieces of ${size}`);
    }
  });

test("an event without a blank line after it is not emitted", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.push("id: 1\ndata: {}\n"), []);
  assert.deepEqual(parser.push("\n"), [{ id: "1", data: "{}" }]);
});
