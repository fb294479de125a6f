/**
 * Choices: score the options of the choice spans of a template, and fill one in before anything is generated
 * (docs/understand/sampler.md).
 */

import { createHash } from "node:crypto";
import { chooseCandidate } from "../diffusion/guidance.ts";
import { choiceUniform } from "../diffusion/philox.ts";
import { invalid } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { Choice, Combination, Decided, GenerateRequest, ScoredRow } from "./request.ts";
import { type Option, type Part, parseTemplate } from "./template.ts";

/** Several choices are decided jointly up to this many combinations of options. */
const MAX_COMBINATIONS = 64;
/** Most scored tokens at once. */
const MAX_SCORED = 1024;

/** Score rows: return the log-probability of each. */
export type Score = (rows: ScoredRow[]) => Promise<number[]>;

/** Return the scores of an answer to scored rows. */
export const scoresOf = ({ scores }: { scores?: readonly { logprob: number }[] }): number[] =>
  scores!.map(({ logprob }) => logprob);

/** A choice span: its options, as text and ids. */
interface Span {
  options: readonly Option[];
  ids: readonly number[][];
}

/** A template as ids. */
type Ids = { ids: number[] } | { masks: number } | { span: number };

/**
 * Decide the choices of a request; return it with `decided`, ready for the engine. A request without choices
 * is returned as it is. Throws InvalidRequestError, and what `score` and `check` throw.
 *
 * @param check called, before anything is scored, with the request as it is longest
 */
export async function choose(
  model: Model,
  request: GenerateRequest,
  score: Score,
  check: (request: GenerateRequest) => unknown,
): Promise<GenerateRequest> {
  const parts = request.template === undefined ? [] : parseTemplate(request.template, request.choices);
  const { spans, ids } = tokenised(model, parts);
  if (spans.length === 0) {
    for (const field of ["choices", "choose"] as const)
      if (request[field] !== undefined)
        throw invalid(`/${field}`, "has no effect without a {{choice}} span in /template: leave it out");
    return request;
  }
  const longest = spans.map(({ ids }) => ids.findIndex((one) => one.length === most(ids)));
  check({ ...request, decided: provisional(spans, longest) });
  if (request.choose === "draw" && request.seed === undefined)
    throw invalid("/seed", "is missing: a drawn choice needs one");

  const chosen: number[] = [];
  const choices: Choice[] = [];
  const hash = createHash("sha256");
  let passes = 0;
  let combinations: Combination[] | undefined;
  const isJoint = spans.length > 1 && fits(spans);
  const groups = isJoint ? [spans.map((_, i) => i)] : spans.map((_, i) => [i]);
  const { mask_token_id: mask } = model.manifest;
  for (const [decision, group] of groups.entries()) {
    const options = product(group.map((span) => spans[span]!.ids.length));
    const rows = options.map((option) => {
      const of = (span: number) => {
        const at = group.indexOf(span);
        if (at >= 0) return spans[span]!.ids[option[at]!]!;
        const earlier = chosen[span];
        return earlier === undefined ? masks(most(spans[span]!.ids), mask) : spans[span]!.ids[earlier]!;
      };
      return scoredRows(ids, of, new Set(group), mask);
    });
    if (rows.flat().length > MAX_SCORED)
      throw invalid("/template", `has a choice with options of more than ${MAX_SCORED} tokens: shorten them`);
    const scores = await score(rows.flat());
    passes += scores.length;
    const totals = sums(
      scores,
      rows.map(({ length }) => length),
    );
    const uniform = request.choose === "draw" ? choiceUniform(request.seed!, decision) : undefined;
    const best =
      uniform === undefined ? totals.indexOf(Math.max(...totals)) : chooseCandidate(totals, uniform);
    hash.update(Int32Array.of(totals.length, best)).update(Float32Array.from(totals));
    for (const [at, span] of group.entries()) {
      chosen[span] = options[best]![at]!;
      choices[span] = choiceOf(spans[span]!, chosen[span]!, (option) =>
        totals.filter((_, i) => options[i]![at] === option),
      );
    }
    if (isJoint) combinations = options.map((option, i) => ({ options: option, logprob: totals[i]! }));
  }
  const decided = { choices, ...(combinations && { combinations }), passes, sha256: hash.digest("hex") };
  return { ...request, decided };
}

/** Return the sums of runs of numbers, of `lengths`. */
function sums(numbers: readonly number[], lengths: readonly number[]): number[] {
  let end = 0;
  return lengths.map((length) => {
    const start = end;
    end += length;
    return numbers.slice(start, end).reduce((sum, one) => sum + one, 0);
  });
}

const most = (ids: readonly number[][]) => Math.max(...ids.map(({ length }) => length));
const masks = (count: number, mask: number) => new Array<number>(count).fill(mask);

/** Return decisions without scores. */
function provisional(spans: readonly Span[], chosen: readonly number[]): Decided {
  return { choices: spans.map((span, i) => choiceOf(span, chosen[i]!, () => [0])), passes: 0, sha256: "" };
}

/** Tokenise the parts of a template; options are tokenised alone. */
function tokenised({ tokenizer, manifest }: Model, parts: readonly Part[]): { spans: Span[]; ids: Ids[] } {
  const context = manifest.context_length;
  const encode = (text: string) => {
    const ids = tokenizer.encode(text, context, "/template");
    if (ids && ids.length <= context) return ids;
    throw invalid("/template", `has more than ${context} tokens, which is the context: shorten it`);
  };
  const spans: Span[] = [];
  // Without choices the layout tokenises the template.
  if (!parts.some((part) => "options" in part)) return { spans, ids: [] };
  const ids = parts.map((part): Ids => {
    if ("masks" in part) return part;
    if ("text" in part) return { ids: encode(part.text) };
    const { options } = part;
    return { span: spans.push({ options, ids: options.map(({ inserted }) => encode(inserted)) }) - 1 };
  });
  return { spans, ids };
}

/** Return true if all combinations of options can be scored at once. */
function fits(spans: readonly Span[]): boolean {
  const combinations = spans.reduce((product, { ids }) => product * ids.length, 1);
  const tokens = spans.reduce((sum, { ids }) => sum + most(ids), 0);
  return combinations <= MAX_COMBINATIONS && combinations * tokens <= MAX_SCORED;
}

/** Return every combination of indices below `counts`, the last index fastest. */
function product(counts: readonly number[]): number[][] {
  return counts.reduce<number[][]>(
    (all, count) => all.flatMap((before) => Array.from({ length: count }, (_, i) => [...before, i])),
    [[]],
  );
}

/**
 * Return the rows whose log-probabilities add up to the log-likelihood of the options in `group`, by the
 * chain rule: each of their tokens is predicted with those before it shown and those after it masked.
 *
 * @param of ids of a span
 */
function scoredRows(
  ids: readonly Ids[],
  of: (span: number) => readonly number[],
  group: ReadonlySet<number>,
  mask: number,
): ScoredRow[] {
  const canvas: number[] = [];
  const scored: { position: number; token: number }[] = [];
  for (const part of ids) {
    if ("span" in part && group.has(part.span))
      for (const [i, token] of of(part.span).entries()) scored.push({ position: canvas.length + i, token });
    canvas.push(...("span" in part ? of(part.span) : "masks" in part ? masks(part.masks, mask) : part.ids));
  }
  return scored.map((target, i) => {
    const shown = [...canvas];
    for (const { position } of scored.slice(i)) shown[position] = mask;
    return { canvas: shown, ...target };
  });
}

/** Return log(sum(exp(x))). */
function logSum(logprobs: readonly number[]): number {
  const top = Math.max(...logprobs);
  return top + Math.log(logprobs.reduce((sum, x) => sum + Math.exp(x - top), 0));
}

/** @param totals log-likelihoods of the combinations that have an option */
function choiceOf({ options, ids }: Span, chosen: number, totals: (option: number) => number[]): Choice {
  const logprobs = options.map((_, option) => logSum(totals(option)));
  const all = logSum(logprobs);
  return {
    chosen,
    text: options[chosen]!.text,
    options: options.map(({ text }, i) => ({
      text,
      tokens: ids[i]!.length,
      logprob: logprobs[i]!,
      probability: Math.exp(logprobs[i]! - all),
    })),
  };
}
