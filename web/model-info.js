/** Shows the served model. */

import { find, make } from "./dom.js";
import { brief } from "./format.js";

/** @typedef {import("./form/request.js").Schemas} Schemas */

/**
 * Return the model of the server.
 * @param {string | undefined} key The API key, if there is one.
 * @returns {Promise<Schemas["ModelInfo"] | "unauthorized">} Rejects if the server does not answer.
 */
export async function fetchModel(key) {
  const response = await fetch("model", key ? { headers: { authorization: `Bearer ${key}` } } : {});
  if (response.status === 401) return "unauthorized";
  if (!response.ok) throw new Error(`the server answers ${response.status} to GET /model`);
  return response.json();
}

/** Show a model. @param {Schemas["ModelInfo"]} model */
export function showModel({ name, description, parameters, context_length, vocab_size, guidance, quality }) {
  find(document, "#model-name", HTMLElement).textContent = name;
  const facts = [
    `${brief(parameters / 1e6)} million parameters`,
    `context of ${context_length} tokens`,
    `vocabulary of ${vocab_size.toLocaleString("en")}`,
    guidance ? "can be guided by its discriminator" : "no discriminator, so no guidance",
  ];
  const about = [make("p", "", description), make("ul", "", ...facts.map((fact) => make("li", "", fact)))];
  if (quality) about.push(qualityTable(quality));
  find(document, "#model-about", HTMLElement).replaceChildren(...about);
}

/** @param {Schemas["Quality"][]} quality */
function qualityTable(quality) {
  const row = (/** @type {"th" | "td"} */ tag, /** @type {string[]} */ cells) =>
    make("tr", "", ...cells.map((cell) => make(tag, "", cell)));
  const rows = quality.map(({ sampler, steps, generative_perplexity, entropy }) =>
    row("td", [sampler, String(steps), brief(generative_perplexity), brief(entropy)]),
  );
  return make(
    "table",
    "",
    make("caption", "", "Measured quality"),
    make("thead", "", row("th", ["sampler", "steps", "perplexity", "entropy"])),
    make("tbody", "", ...rows),
  );
}
