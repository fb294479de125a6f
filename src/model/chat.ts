/**
 * The chat template of a model: messages to ids.
 *
 * The template's special tokens become their ids; the same texts inside a message are ordinary characters.
 */

import { readFile } from "node:fs/promises";
import { StartupError } from "../errors.ts";
import type { ChatFormat } from "./manifest.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A message of a conversation. */
export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

/** The template refuses a conversation, such as one whose roles do not alternate. */
export class TemplateError extends Error {
  override name = "TemplateError";
}

/** Parts of texts that are no special tokens have this between their first two characters: a noncharacter. */
const MARK = "\ufdd0";

/** Renders conversations. */
export class ChatTemplate {
  readonly #special: ReadonlyMap<string, number>;
  /** Any special token; the longest first, for one may begin with another. */
  readonly #anySpecial: RegExp;

  private constructor(
    readonly template: { render(values: Record<string, unknown>): string },
    readonly format: ChatFormat,
  ) {
    this.#special = new Map(Object.entries(format.special_tokens));
    const texts = [...this.#special.keys()].sort((a, b) => b.length - a.length);
    this.#anySpecial = new RegExp(texts.map(escaped).join("|"), "g");
  }

  /** Read a template. Throws StartupError if it is no Jinja. */
  static async open(path: string, format: ChatFormat): Promise<ChatTemplate> {
    // Models without chat need no Jinja.
    const { Template } = await import("@huggingface/jinja");
    try {
      return new ChatTemplate(new Template(await readFile(path, "utf8")), format);
    } catch (error) {
      throw new StartupError(`cannot use ${path}: ${(error as Error).message}`);
    }
  }

  /**
   * Return the ids of a conversation up to where the model answers, or undefined if its size alone shows that
   * it has more than `limit` tokens. Throws TemplateError if the template refuses it.
   */
  encode(messages: readonly ChatMessage[], tokenizer: Tokenizer, limit: number): number[] | undefined {
    const mark = MARK.repeat(1 + longestRun(messages));
    const plain = (text: string) =>
      text.replace(this.#anySpecial, (token) => token[0] + mark + token.slice(1));
    const rendered = this.#render(messages.map(({ role, content }) => ({ role, content: plain(content) })));
    const ids: number[] = [];
    const add = (text: string) => {
      const part = tokenizer.encode(text.replaceAll(mark, ""), limit, "/messages");
      for (const id of part ?? []) ids.push(id);
      return part !== undefined && ids.length <= limit;
    };
    let at = 0;
    for (const { index, 0: token } of rendered.matchAll(this.#anySpecial)) {
      if (!add(rendered.slice(at, index))) return undefined;
      ids.push(this.#special.get(token)!);
      at = index + token.length;
    }
    return add(rendered.slice(at)) ? ids : undefined;
  }

  #render(messages: readonly ChatMessage[]): string {
    const { bos_token = "", eos_token = "" } = this.format;
    try {
      return this.template.render({ messages, add_generation_prompt: true, bos_token, eos_token });
    } catch (error) {
      throw new TemplateError((error as Error).message);
    }
  }
}

/** Return the source of a regular expression that matches a text. */
const escaped = (text: string) => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");

/**
 * Return the length of the longest run of MARK in the messages, so that one more of them is in no message.
 */
function longestRun(messages: readonly ChatMessage[]): number {
  const runs = messages.flatMap(({ content }) => content.match(new RegExp(`${MARK}+`, "g")) ?? []);
  return runs.reduce((most, run) => Math.max(most, run.length), 0);
}
