/** A small chat model of random weights: `tiny-guided` with a chat template and its special tokens. */

import { createHash } from "node:crypto";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TINY_GUIDED } from "./engine.ts";

/** Ids of the special tokens: those of two bytes that no UTF-8 text has. */
export const CHAT_TOKENS = { "<|im_start|>": 0xfe, "<|im_end|>": 0xff };

/** The name of the model. */
export const CHAT_MODEL = "tiny-chat";

/** ChatML, which refuses a conversation of two messages of the same role after the other. */
const TEMPLATE = `{%- for message in messages -%}
{%- if not loop.first and message.role == messages[loop.index0 - 1].role -%}
{{- raise_exception('roles must alternate') -}}
{%- endif -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + eos_token + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
`;

/** Make the model in an empty folder. */
export async function makeChatModel(folder: string): Promise<void> {
  await cp(TINY_GUIDED, folder, { recursive: true });
  const write = async (file: string, text: string) => {
    await writeFile(join(folder, file), text);
    const sha256 = createHash("sha256").update(text).digest("hex");
    return { file, sha256, bytes: Buffer.byteLength(text) };
  };
  const definition = JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8"));
  const taken = new Set<unknown>(Object.values(CHAT_TOKENS));
  const vocab = Object.entries(definition.model.vocab).filter(([, id]) => !taken.has(id));
  definition.model.vocab = Object.fromEntries(vocab);
  const tokenizer = await write("tokenizer.json", JSON.stringify(definition));
  const template = await write("chat_template.jinja", TEMPLATE);
  const manifest = JSON.parse(await readFile(join(folder, "model.json"), "utf8"));
  const chat = { template, special_tokens: CHAT_TOKENS, eos_token: "<|im_end|>" };
  const end_of_text_token_id = CHAT_TOKENS["<|im_end|>"];
  const changed = { ...manifest, name: CHAT_MODEL, end_of_text_token_id, tokenizer, chat };
  await writeFile(join(folder, "model.json"), JSON.stringify(changed));
}
