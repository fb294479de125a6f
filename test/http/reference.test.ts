/** GET /docs: everything that openapi.yaml says, from this server alone, without a script. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { FastifyInstance } from "fastify";
import type { Engine } from "../../src/engine/engine.ts";
import { buildApp } from "../../src/http/app.ts";
import { CONTRACT } from "../../src/http/openapi.ts";
import { OPERATIONS, type Schema } from "../../src/http/reference/contract.ts";
import { html, type joined } from "../../src/http/reference/html.ts";
import { fieldsOf, prose, rangesOf, typeOf } from "../../src/http/reference/schema.ts";
import { startEngine } from "../support.ts";

let engine: Engine;
let app: FastifyInstance;
let page: string;
before(async () => {
  engine = await startEngine();
  app = await buildApp(engine);
  page = (await app.inject("/docs")).body;
});
after(async () => {
  await app.close();
  await engine.runtime.close();
});

/** What a reader sees, in one line. */
const textOf = (markup: string) =>
  markup
    .replaceAll(/<[^>]*>/g, "")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&amp;", "&")
    .replaceAll(/\s+/g, " ");

/** The section of that id. */
function sectionOf(id: string): string {
  const section = new RegExp(`<section id="${id}">([\\s\\S]*?)</section>`).exec(page)?.[1];
  assert.ok(section, `no section ${id}`);
  return textOf(section);
}

const plain = (text: string) => text.replaceAll("`", "").replaceAll(/\s+/g, " ").trim();

test("the page may load styles, fonts and pictures of its own server, and nothing else", async () => {
  const { headers, statusCode } = await app.inject("/docs");
  assert.equal(statusCode, 200);
  assert.match(headers["content-type"] as string, /^text\/html/);
  const policy = headers["content-security-policy"] as string;
  assert.match(policy, /^default-src 'none';style-src 'self';font-src 'self';img-src 'self';/);
  assert.doesNotMatch(policy, /unsafe|\*|script-src|connect-src/);
  assert.equal(headers["x-content-type-options"], "nosniff");
  assert.doesNotMatch(page, /<script|<style|<iframe|\sstyle=|\son\w+=|\ssrc=/i);
  const again = await app.inject({ url: "/docs", headers: { "if-none-match": headers.etag as string } });
  assert.equal(again.statusCode, 304);
});

test("every link leads somewhere: an anchor of the page, or a file of the server", async () => {
  const ids = Array.from(page.matchAll(/ id="([^"]+)"/g), ([, id]) => id);
  assert.equal(new Set(ids).size, ids.length);
  const links = new Set(Array.from(page.matchAll(/ href="([^"]+)"/g), ([, link]) => link!));
  assert.ok(links.size > 30);
  for (const link of links)
    if (link.startsWith("#")) assert.ok(ids.includes(link.slice(1)), link);
    else assert.equal((await app.inject(new URL(link, "http://a/docs").pathname)).statusCode, 200, link);
});

test("every operation is there with its parameters, body, example, answers and headers", () => {
  assert.equal(
    OPERATIONS.length,
    Object.values(CONTRACT.paths).flatMap((item) =>
      Object.keys(item as object).filter((key) => key !== "parameters"),
    ).length,
  );
  for (const { operationId, method, path, summary, description, parameters, body, answers } of OPERATIONS) {
    const text = sectionOf(operationId);
    assert.ok(text.includes(`${method} ${path}`));
    assert.equal(
      text.includes("Asks for no key."),
      CONTRACT.paths[path][method.toLowerCase()].security?.length === 0,
    );
    for (const said of [summary, description ?? ""]) assert.ok(text.includes(plain(said)), said);
    for (const { name } of parameters) assert.ok(text.includes(name));
    for (const [type, { example }] of Object.entries(body)) {
      assert.ok(text.includes(type));
      assert.ok(text.includes(plain(JSON.stringify(example, null, 2))), JSON.stringify(example));
    }
    for (const [status, answer] of answers) {
      assert.ok(text.includes(`${status} `) && text.includes(plain(answer.description)));
      for (const header of Object.keys(answer.headers ?? {})) assert.ok(text.includes(header));
    }
  }
  assert.match(page, /urn:didi-serve:problem:overloaded<\/code><\/th><td>429/);
});

/** Every schema inside a schema, with what leads to it. */
function walk(schema: Schema, path: string, visit: (schema: Schema, path: string) => void): void {
  visit(schema, path);
  for (const [name, field] of Object.entries(schema.properties ?? {}))
    walk(field, path === "" ? name : `${path}.${name}`, visit);
  if (schema.items) walk(schema.items, `${path}[]`, visit);
  for (const choice of schema.oneOf ?? []) walk(choice, path, visit);
}

test("every field of every schema is there with its description, default, values and bounds", () => {
  let fields = 0;
  for (const [name, schema] of Object.entries<Schema>(CONTRACT.components.schemas)) {
    const text = sectionOf(`schema-${name}`);
    walk(schema, "", (inner, path) => {
      const where = `${name} ${path}`;
      if (!/\[\]$/.test(path)) assert.ok(text.includes(path), where);
      if (inner.description && !/\[\]$/.test(path)) assert.ok(text.includes(plain(inner.description)), where);
      if (inner.default !== undefined)
        assert.ok(text.includes(`Default: ${JSON.stringify(inner.default)}.`), where);
      for (const value of inner.enum ?? []) assert.ok(text.includes(JSON.stringify(value)), where);
      for (const bound of [inner.minimum, inner.maximum, inner.maxLength, inner.maxItems])
        if (bound !== undefined) assert.ok(text.includes(bound.toLocaleString("en")), where);
      if (inner.pattern) assert.ok(text.includes(inner.pattern), where);
      fields++;
    });
  }
  assert.ok(fields > 200, `${fields} fields`);
});

test("text is escaped, and schemas read as they are meant", () => {
  const text = (part: Parameters<typeof joined>[1]) => html`${part}`.text;
  assert.equal(text('<a> & "b"'), "&lt;a&gt; &amp; &quot;b&quot;");
  assert.equal(
    text(prose("a `b<c` of a GenerateRequest, a Sample")),
    'a <code>b&lt;c</code> of a <a href="#schema-GenerateRequest">GenerateRequest</a>, a Sample',
  );
  const range = (schema: Schema) => text(rangesOf(schema));
  assert.equal(range({ exclusiveMinimum: 0, maximum: 1 }), "above 0, at most 1");
  assert.equal(range({ minItems: 2, maxItems: 2, items: { minimum: 0 } }), "2 items; each at least 0");
  assert.equal(range({}), "");
  assert.equal(
    textOf(text(typeOf({ type: ["array", "null"], items: { const: "x" } }))),
    'array of "x" or null',
  );
  assert.equal(textOf(fieldsOf({ type: "string", minLength: 2 }).text), "string: at least 2 characters");
});
