/**
 * Clients for Node, each used as its documentation shows: `node clients.mjs ORIGIN`, beside their packages. Prints one JSON
 * line for each client: its name, its version and what was done.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { OpenAI as LangChain } from "@langchain/openai";
import { generateText, streamText } from "ai";
import { EventSource } from "eventsource";
import OpenAI from "openai";

const origin = process.argv[2];
const model = "stories-didi";
const prompt = "Once upon a time";
const baseURL = `${origin}/v1`;

const passed = (name, done) => {
  const { version } = JSON.parse(
    readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), "utf8"),
  );
  console.log(JSON.stringify({ client: name, language: "JavaScript", version, done }));
};

const openai = new OpenAI({ baseURL, apiKey: "none" });
const whole = await openai.completions.create({ model, prompt, max_tokens: 32, seed: 1, logprobs: 1 });
let text = "";
for await (const { choices } of await openai.completions.create({
  model,
  prompt,
  max_tokens: 32,
  seed: 1,
  stream: true,
}))
  text += choices[0].text;
assert.equal(text, whole.choices[0].text);
await assert.rejects(
  openai.chat.completions.create({ model, messages: [{ role: "user", content: "hi" }] }),
  /has no chat template/,
);
passed("openai", "completions, streamed or not; chat is refused with the reason");

const langchain = new LangChain({
  model,
  apiKey: "none",
  configuration: { baseURL },
  maxTokens: 24,
  temperature: 0.5,
});
assert.ok((await langchain.invoke(prompt)).length > 0);
let chunks = 0;
for await (const _ of await langchain.stream(prompt)) chunks++;
assert.ok(chunks > 1);
passed("@langchain/openai", "OpenAI: invoke, stream");

const provider = createOpenAICompatible({ name: "didi", baseURL });
const completion = provider.completionModel(model);
const generated = await generateText({ model: completion, prompt, maxOutputTokens: 24, seed: 1 });
assert.ok(generated.text.length > 0);
let streamed = "";
for await (const delta of streamText({ model: completion, prompt, maxOutputTokens: 24, seed: 1 }).textStream)
  streamed += delta;
assert.equal(streamed, generated.text);
passed("@ai-sdk/openai-compatible", "completionModel with generateText and streamText of ai");

const body = JSON.stringify({ prompt, length: 16, steps: 4, seed: 1 });
const source = new EventSource(`${origin}/generate`, {
  fetch: (url, init) =>
    fetch(url, {
      ...init,
      method: "POST",
      body,
      headers: { ...init.headers, "content-type": "application/json" },
    }),
});
let steps = 0;
source.addEventListener("step", () => steps++);
await new Promise((resolve, reject) => {
  source.addEventListener("done", resolve);
  source.addEventListener("error", reject);
});
source.close();
assert.equal(steps, 4);
passed("eventsource", "POST /generate as events, every step received");
