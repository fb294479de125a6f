/** Shows the served model. */

import { find, make } from "./dom.js";
import { brief } from "./format.js";

/** @typedef {import("./form/request.js").Schemas} Schemas */

/** @param {string} path @param {string | undefined} key */
async function get(path, key) {
  const response = await fetch(path, key ? { headers: { authorization: `Bearer ${key}` } } : {});
  if (response.status === 401) return "unauthorized";
  if (!response.ok) throw new Error(`the server answers ${response.status} to GET /${path}`);
  return response.json();
}

/**
 * Return the models of the server.
 * @param {string | undefined} key The API key, if there is one.
 * @returns {Promise<Schemas["ModelList"] | "unauthorized">} Rejects if the server does not answer.
 */
export const fetchModels = (key) => get("v1/models", key);

/**
 * Return a model of the server.
 * @param {string | undefined} key The API key, if there is one.
 * @param {string} [name] Absent: the first one.
 * @returns {Promise<Schemas["ModelInfo"] | "unauthorized">} Rejects if the server does not answer.
 */
export const fetchModel = (key, name) =>
  get(name === undefined ? "model" : `model?${new URLSearchParams({ model: name })}`, key);

/** Show a model. One of letters gets a fixed-width face. @param {Schemas["ModelInfo"]} model */
export function showModel(model) {
  const { name, description, alphabet, parameters, context_length, vocab_size } = model;
  const { guidance, quality, rewards } = model;
  document.body.classList.toggle("letters", alphabet !== undefined);
  find(document, "#model-name", HTMLElement).textContent = name;
  const facts = [
    ...(alphabet === undefined ? [] : [`writes ${alphabet}, a letter a token`]),
    `${brief(parameters / 1e6)} million parameters`,
    `context of ${context_length} tokens`,
    `vocabulary of ${vocab_size.toLocaleString("en")}`,
    guidance ? "can be guided by its discriminator" : "no discriminator, so no guidance",
    ...(rewards.length > 0 ? [`rewards: ${rewards.map((reward) => reward.name).join(", ")}`] : []),
  ];
  const about = [make("p", "", description), make("ul", "", ...facts.map((fact) => make("li", "", fact)))];
  if (quality) about.push(qualityTable(quality));
  find(document, "#model-about", HTMLElement).replaceChildren(...about);
}

/** Names of the samplers in the table. @type {Record<string, string>} */
const SAMPLERS = { plain: "plain", rgas: "guided" };

/**
 * Return quality sorted by sampler, the plain one first, and by steps.
 * @param {Schemas["Quality"][]} quality
 */
export const sortedQuality = (quality) =>
  quality.toSorted((a, b) => a.sampler.localeCompare(b.sampler) || a.steps - b.steps);

/** @param {Schemas["Quality"][]} quality */
function qualityTable(quality) {
  const row = (/** @type {"th" | "td"} */ tag, /** @type {string[]} */ cells) =>
    make("tr", "", ...cells.map((cell) => make(tag, "", cell)));
  const rows = sortedQuality(quality).map(({ sampler, steps, generative_perplexity, entropy }) =>
    row("td", [
      SAMPLERS[sampler] ?? sampler,
      String(steps),
      brief(generative_perplexity),
      `${brief(entropy)} nats`,
    ]),
  );
  return make(
    "table",
    "",
    make(
      "caption",
      "",
      "Measured quality. Perplexity: how unlikely another model finds the texts; lower is better. " +
        "Entropy: variety of the tokens in a text; lower means more repetition.",
    ),
    make("thead", "", row("th", ["sampler", "steps", "perplexity", "entropy"])),
    make("tbody", "", ...rows),
  );
}
