/**
 * Clients for Node, each used as its documentation shows: `node clients.mjs ORIGIN CHAT_ORIGIN`, beside
 * their packages. Prints one JSON line for each client: its name, its version and what was done.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI, OpenAI as LangChain } from "@langchain/openai";
import { generateText, streamText } from "ai";
import { EventSource } from "eventsource";
import OpenAI from "openai";

const [origin, chatOrigin] = process.argv.slice(2);
const chatModel = "tiny-chat";
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
const chat = new OpenAI({ baseURL: `${chatOrigin}/v1`, apiKey: "none" }).chat.completions;
const asked = {
  model: chatModel,
  messages: [{ role: "user", content: "Hi" }],
  max_completion_tokens: 24,
  seed: 1,
  logprobs: true,
  top_logprobs: 2,
};
const answer = (await chat.create(asked)).choices[0];
let content = "";
for await (const { choices } of await chat.create({ ...asked, stream: true }))
  content += choices[0].delta.content;
assert.equal(content, answer.message.content);
assert.ok(answer.logprobs.content[0].top_logprobs.length === 2);
passed("openai", "completions and chat, streamed or not; a model without chat says so");

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
const chatting = new ChatOpenAI({
  model: chatModel,
  apiKey: "none",
  configuration: { baseURL: `${chatOrigin}/v1` },
  maxTokens: 24,
  modelKwargs: { seed: 1 },
});
const said = (
  await chatting.invoke([
    ["system", "Be brief"],
    ["human", "Hi"],
  ])
).content;
let parts = "";
for await (const part of await chatting.stream([
  ["system", "Be brief"],
  ["human", "Hi"],
]))
  parts += part.content;
assert.equal(parts, said);
passed("@langchain/openai", "OpenAI and ChatOpenAI: invoke, stream");

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
