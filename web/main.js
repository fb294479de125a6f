/** The playground: connects the form, the panels and the server. */

import { mostNats } from "./charts/charts.js";
import { Connection } from "./connection.js";
import { find } from "./dom.js";
import { Form } from "./form/form.js";
import { KeyForm, storedKey } from "./form/key.js";
import { generateMessage, piecesOf } from "./form/request.js";
import { DEFAULTS, fromHash, SECOND_RUN, toHash } from "./form/settings.js";
import { brief } from "./format.js";
import { fetchModel, fetchModels, showModel } from "./model-info.js";
import { Panel } from "./run/panel.js";
import { Run } from "./run/run.js";

const LOST = {
  title: "The connection was lost",
  detail: "The server went away before this run ended. Generate again once the page says it is connected.",
};
const UNAUTHORIZED = {
  title: "The server requires an API key",
  detail: "Enter one at the top of the page, then generate again.",
};
const UNREACHABLE = {
  title: "The server cannot be reached",
  detail: "Start it with npm start, or check the network, then generate again.",
};

const connectionText = find(document, "#connection", HTMLElement);
const announcement = find(document, "#announcement", HTMLElement);
const runsElement = find(document, "#runs", HTMLElement);

/** @type {number | undefined} */
let endOfText;
let runAtOnce = false;
let count = 0;

/** @type {import("./run/panel.js").Page} */
const page = {
  changed: settle,
  nats: () => Math.max(...shownPanels().map(({ run }) => mostNats(run))),
  endOfText: () => endOfText,
};
const [first, second] = [new Panel("A", page), new Panel("B", page)];
runsElement.append(first.element, second.element);

const form = new Form({ changed: settle, chosen: showChosen, submitted: generate, cancelled: cancel });

/** Return the visible panels. @returns {Panel[]} */
function shownPanels() {
  return form.compare ? [first, second] : [first];
}

/** @returns {import("./form/settings.js").Settings} */
function settings() {
  return { ...form.settings, runs: shownPanels().map((panel) => panel.settings) };
}

/** Update the page for changed settings; a finished run stays until the canvas changes. */
function settle() {
  const { compare } = form;
  second.element.hidden = !compare;
  runsElement.classList.toggle("two", compare);
  const pieces = piecesOf(form.settings);
  for (const panel of shownPanels()) {
    const same = JSON.stringify(panel.run?.pieces) === JSON.stringify(pieces);
    if (!same && (panel.run?.over ?? true)) panel.preview(pieces);
  }
}

function generate() {
  if (!form.valid) return;
  cancel();
  const asked = settings();
  history.replaceState(null, "", `#${toHash(asked)}`);
  for (const [i, panel] of shownPanels().entries()) {
    const own = asked.runs[i] ?? SECOND_RUN;
    const run = new Run(String(++count), piecesOf(asked), own.steps);
    panel.start(run);
    if (!connection.send(generateMessage(run.id, asked, own))) {
      run.fail(UNREACHABLE);
      connection.retry();
    }
  }
  changed();
}

function cancel() {
  for (const { run } of [first, second])
    if (run && !run.over) connection.send({ type: "cancel", id: run.id });
}

/** Update the panels of the runs. */
function changed() {
  for (const panel of [first, second]) panel.update();
  const running = [first, second].some(({ run }) => run && !run.over);
  form.running = running;
}

/** Announce the result to screen readers. @param {Panel} panel */
function announce({ element, run }) {
  if (!run) return;
  const { state, failure, result } = run;
  const text = {
    waiting: "",
    running: "runs",
    done: `is done: ${result?.samples[0]?.text ?? ""}`,
    cancelled: "is cancelled",
    failed: `has failed. ${failure?.title}. ${failure?.detail}`,
  }[state];
  announcement.textContent = `Run ${element.dataset.name} ${text}`;
}

const address = new URL("generate/stream", location.href);
address.protocol = address.protocol.replace("http", "ws");
address.hash = "";

/**
 * End the running requests as failed: the server sends no more events. @param {{ title: string, detail:
 * string }} why
 */
function failAll(why) {
  for (const panel of [first, second]) {
    if (!panel.run || panel.run.over) continue;
    panel.run.fail(why);
    announce(panel);
  }
  changed();
}

/** Show the chosen model, whose key is known to be valid. */
async function showChosen() {
  const { model: name } = form.settings;
  const model = await fetchModel(storedKey(), name);
  // Another one may have been chosen meanwhile.
  if (model === "unauthorized" || form.settings.model !== name) return;
  endOfText = model.end_of_text_token_id;
  form.info = model;
  for (const panel of [first, second]) panel.guidance = model.guidance;
  // The first prompt is English.
  if (model.alphabet !== undefined && form.settings.prompt === DEFAULTS.prompt)
    form.settings = { ...settings(), prompt: "" };
  showModel(model);
  settle();
}

/** Ask for a key. @param {string} why */
function askForKey(why) {
  connectionText.dataset.state = "lost";
  connectionText.textContent = "an API key is needed";
  // A link holds no key.
  find(document, "#api-link", HTMLElement).hidden = true;
  keyForm.show(why);
  failAll(UNAUTHORIZED);
}

const keyForm = new KeyForm(() => connection.reopen());

const connection = new Connection(address.href, storedKey, {
  async opened() {
    try {
      const models = await fetchModels(storedKey());
      if (models === "unauthorized")
        return askForKey("This server requires an API key. It is kept until this tab is closed.");
      connectionText.dataset.state = "open";
      connectionText.textContent = "connected";
      keyForm.hide();
      form.models = models.data.map(({ id }) => id);
      await showChosen();
    } catch {
      // The socket closes as well, and reports the loss.
      return;
    }
    if (runAtOnce) generate();
    runAtOnce = false;
  },
  received(event) {
    const panel = [first, second].find(({ run }) => run && run.id === event.id);
    if (!panel?.run) return;
    const { state } = panel.run;
    panel.run.apply(event);
    if (panel.run.state !== state) announce(panel);
    changed();
  },
  refused: askForKey,
  lost(waitMs) {
    connectionText.dataset.state = "lost";
    connectionText.textContent = `no connection, trying again in ${brief(waitMs / 1000)} s`;
    failAll(LOST);
  },
});

/** Apply the settings in the address of the page. */
function open() {
  const link = fromHash(location.hash);
  runAtOnce = link.run;
  form.settings = link.settings;
  first.settings = link.settings.runs[0] ?? SECOND_RUN;
  second.settings = link.settings.runs[1] ?? SECOND_RUN;
  settle();
}

addEventListener("hashchange", () => {
  open();
  // Without a connection, it is shown once there is one.
  showChosen().catch(() => {});
  if (runAtOnce) generate();
  runAtOnce = false;
});

const copyButton = find(document, "#copy-link", HTMLButtonElement);
copyButton.addEventListener("click", async () => {
  const link = new URL(`#${toHash(settings(), { run: true })}`, location.href);
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link.href);
    announcement.textContent = "The link is copied.";
    copyButton.textContent = "Link copied";
  } catch {
    // Without access to the clipboard, the link is in the address bar.
    copyButton.textContent = "Link is in the address bar";
  }
  setTimeout(() => {
    copyButton.textContent = "Copy link";
  }, 2000);
});

open();
