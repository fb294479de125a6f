/** The reference: openapi.yaml as one page of HTML, without a script. */

import { PROBLEMS } from "../problem.ts";
import { type Answer, type Content, info, OPERATIONS, type Operation, SCHEMAS } from "./contract.ts";
import { type Html, html, joined, type Part } from "./html.ts";
import { fieldsOf, prose, rangesOf, typeOf } from "./schema.ts";

const bodies = (content: Content): Part =>
  joined(
    Object.entries(content).map(([type, { schema }]) => [
      html`<code>${type}</code>: `,
      typeOf(schema),
      schema.description && [". ", prose(schema.description)],
    ]),
    html`<br>`,
  );

function parameters(operation: Operation): Html | undefined {
  if (operation.parameters.length === 0) return undefined;
  return html`<table>
<thead><tr><th scope="col">Parameter</th><th scope="col">Type</th><th scope="col">Meaning</th></tr></thead>
<tbody>${operation.parameters.map(
    ({ name, in: where, required, schema, description }) => html`
<tr>
<th scope="row"><code>${name}</code> <small>in ${where}${required && ", required"}</small></th>
<td>${typeOf(schema)}<br><small>${rangesOf(schema)}</small></td>
<td>${prose(description)}</td>
</tr>`,
  )}
</tbody>
</table>`;
}

const answerRow = ([status, { description, headers = {}, content = {} }]: [string, Answer]) => html`
<tr>
<th scope="row"><code>${status}</code></th>
<td>${bodies(content)}</td>
<td>${prose(description)}${Object.entries(headers).map(
  ([name, header]) =>
    html`<br><code>${name}</code>: ${prose(header.description)}, ${rangesOf(header.schema)}`,
)}</td>
</tr>`;

function operationSection(operation: Operation): Html {
  const { operationId, method, path, summary, description, body, answers, guarded } = operation;
  const examples = Object.values(body).flatMap(({ example }) => (example === undefined ? [] : [example]));
  return html`
<section id="${operationId}">
<h3><span class="method">${method}</span> <code>${path}</code></h3>
<p><strong>${prose(summary)}.</strong> ${prose(description)}${!guarded && " Asks for no key."}</p>
${parameters(operation)}
${Object.keys(body).length > 0 && html`<p>Body: ${bodies(body)}</p>`}
${examples.map((example) => html`<pre><code>${JSON.stringify(example, null, 2)}</code></pre>`)}
<table>
<thead><tr><th scope="col">Answer</th><th scope="col">Body</th><th scope="col">Meaning</th></tr></thead>
<tbody>${answers.map(answerRow)}
</tbody>
</table>
</section>`;
}

/** The whole page. */
export function referencePage(): string {
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${info.title}: reference</title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="theme.css">
<link rel="stylesheet" href="reference.css">
</head>
<body>
<main>
<h1>${info.title} <small>${info.version}</small></h1>
<p>${info.summary}. This page is made from <a href="openapi.yaml">openapi.yaml</a>; <a href="./">the playground</a> shows it at work.</p>
<p>${prose(info.description)}</p>
<nav aria-label="Routes">
<ul>${OPERATIONS.map(
    ({ operationId, method, path, summary }) => html`
<li><a href="#${operationId}"><span class="method">${method}</span> <code>${path}</code></a> ${prose(summary)}</li>`,
  )}
</ul>
</nav>
<h2>Routes</h2>
${OPERATIONS.map(operationSection)}
<h2 id="problems">Problems</h2>
<p>Every error is a <a href="#schema-Problem">Problem</a> with one of these types, or says the same in the shape of the API it belongs to.</p>
<table>
<thead><tr><th scope="col">Type</th><th scope="col">Status</th><th scope="col">Title</th></tr></thead>
<tbody>${PROBLEMS.map(
    ({ type, status, title }) => html`
<tr><th scope="row"><code>${type}</code></th><td>${status}</td><td>${title}</td></tr>`,
  )}
</tbody>
</table>
<h2>Schemas</h2>
${Object.entries(SCHEMAS).map(
  ([name, schema]) => html`
<section id="schema-${name}">
<h3>${name}</h3>
${schema.description && html`<p>${prose(schema.description)}</p>`}
${fieldsOf(schema)}
</section>`,
)}
</main>
</body>
</html>
`;
  return page.text;
}
