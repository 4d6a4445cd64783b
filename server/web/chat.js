// Conversations with a model.

import { ask, ApiError, events } from "./api.js";
import { button, byId, download, duration, make } from "./dom.js";
import { copyButton, rendered } from "./markdown.js";
import * as store from "./store.js";

const FRAME_MS = 80;
const SETTINGS = ["system", "temperature", "top_p", "max_tokens", "seed"];
let chat = store.fresh();
let running = null;
let openKeys = () => {};
let models = [];

export function start(page) {
  openKeys = page.openKeys;
  chat = store.all()[0] ?? chat;
  byId("new").onclick = () => open(store.fresh(byId("model").value));
  byId("drawer").onclick = () => drawer(byId("drawer").getAttribute("aria-expanded") !== "true");
  byId("export").onclick = () => download("ingle-conversations.json", store.all());
  byId("download").onclick = () => download(`${fileName(chat.title)}.json`, chat);
  byId("import").onchange = (event) => importFile(event.target);
  byId("stop").onclick = () => running?.abort();
  byId("model").onchange = () => (chat.model = byId("model").value);
  for (const name of SETTINGS) byId(name).onchange = () => (chat.settings[name] = byId(name).value);
  byId("text").onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("ask").requestSubmit();
  };
  byId("ask").onsubmit = (event) => {
    event.preventDefault();
    const text = byId("text").value.trim();
    if (!text || running) return;
    byId("text").value = "";
    say(text);
  };
}

export function enter() {
  loadModels();
  show();
}

async function loadModels() {
  try {
    const told = await ask("GET", "/v1/models");
    models = told.data.filter((model) => model.capabilities.includes("chat"));
    fillModels();
    scroll(true);
    status(models.length ? "" : "This server has no model to chat with.");
  } catch (error) {
    failed(error);
  }
}

function fillModels() {
  const names = models.map((model) => model.id);
  if (!names.includes(chat.model)) chat.model = names[0] ?? "";
  const options = names.map((name) => make("option", { value: name, textContent: name }));
  byId("model").replaceChildren(...options);
  byId("model").value = chat.model;
}

// What is shown

function open(other) {
  running?.abort();
  chat = other;
  drawer(false);
  show();
  byId("text").focus();
}

function show() {
  for (const name of SETTINGS) byId(name).value = chat.settings[name];
  if (models.length) fillModels();
  showList();
  byId("turns").replaceChildren(...chat.turns.map(turn));
  status("");
  scroll(true);
}

function showList() {
  const entries = store.all().map((one) => {
    const title = button(one.title || "New chat", () => open(one), "plain title");
    const remove = button("✕", () => {
      if (!confirm(`Delete "${one.title}"?`)) return;
      store.forget(one.id);
      if (one.id === chat.id) open(store.fresh(chat.model));
      else showList();
    });
    remove.setAttribute("aria-label", `Delete ${one.title}`);
    const made = make("li", {}, title, remove);
    if (one.id === chat.id) made.className = "current";
    return made;
  });
  byId("list").replaceChildren(...entries);
}

function turn(said, index) {
  const body = make("div", { className: "said" });
  const made = make("li", { className: said.role }, body);
  if (said.role === "user") {
    body.textContent = said.content;
    made.append(tools(copyButton(() => said.content), button("Edit", () => edit(made, index))));
  } else {
    fill(body, said);
    const again = button("Regenerate", () => regenerate(index));
    made.append(tools(copyButton(() => said.content), again), figures(said));
  }
  return made;
}

const tools = (...buttons) => make("div", { className: "tools" }, ...buttons);

function fill(body, said) {
  const parts = [];
  if (said.reasoning) {
    const open = body.querySelector("details")?.open ?? false;
    const thought = make("div", {}, rendered(said.reasoning));
    parts.push(make("details", { open }, make("summary", { textContent: "Reasoning" }), thought));
  }
  parts.push(rendered(said.content));
  if (said.error) parts.push(make("p", { className: "error", textContent: said.error }));
  body.replaceChildren(...parts);
}

/** What the answer took, as the server counts tokens and this page waits for them. */
function figures({ usage, first, seconds, finish, model }) {
  const told = [model];
  if (usage) told.push(`${usage.completion_tokens} tokens`);
  if (usage?.completion_tokens > 1 && seconds > 0) {
    told.push(`${Math.round(((usage.completion_tokens - 1) / seconds) * 10) / 10} tokens/s`);
  }
  if (first !== undefined) told.push(`first after ${duration(first)}`);
  if (usage) {
    const known = usage.prompt_tokens_details?.cached_tokens ?? 0;
    told.push(`prompt ${usage.prompt_tokens} tokens, ${known} of them known`);
  }
  if (finish === "length") told.push("cut at the limit of tokens");
  if (finish === "stopped") told.push("stopped");
  return make("p", { className: "figures hint", textContent: told.filter(Boolean).join(" · ") });
}

function edit(made, index) {
  const area = make("textarea", { value: chat.turns[index].content, rows: 4 });
  area.setAttribute("aria-label", "Edited message");
  const save = button("Send", () => {
    const text = area.value.trim();
    if (!text || running) return;
    chat.turns.length = index;
    say(text);
  }, "");
  made.replaceChildren(area, tools(save, button("Cancel", show)));
  area.focus();
}

function regenerate(index) {
  if (running) return;
  chat.turns.length = index;
  answer();
}

// What is asked

function say(text) {
  chat.title ||= text.slice(0, 60).replace(/\s+/g, " ");
  chat.turns.push({ role: "user", content: text });
  answer();
}

async function answer() {
  const asked = chat;
  const said = { role: "assistant", content: "", reasoning: "", model: asked.model };
  const request = body(asked);
  asked.turns.push(said);
  keep(asked);
  show();
  const own = (running = new AbortController());
  busy(true);
  waitingFor(asked.model);
  try {
    await hear(asked, said, request, own.signal);
  } catch (error) {
    if (error.name === "AbortError") said.finish = "stopped";
    else {
      said.error = error instanceof ApiError ? error.message : "The server does not answer.";
      failed(error);
    }
  }
  running = null;
  busy(false);
  keep(asked);
  if (chat === asked) show();
  else showList();
}

async function hear(asked, said, request, signal) {
  const began = performance.now();
  let firstAt = 0;
  let drawn = 0;
  for await (const event of events("/v1/chat/completions", request, { signal })) {
    const choice = event.choices[0];
    said.usage = event.usage ?? said.usage;
    said.finish = choice?.finish_reason ?? said.finish;
    const { content, reasoning_content: reasoning } = choice?.delta ?? {};
    if (!content && !reasoning) continue;
    const now = performance.now();
    if (!firstAt) {
      firstAt = now;
      said.first = (now - began) / 1000;
      status("");
    }
    said.seconds = (now - firstAt) / 1000;
    said.content += content ?? "";
    said.reasoning += reasoning ?? "";
    if (chat === asked && now - drawn > FRAME_MS) {
      drawn = now;
      const body = byId("turns").lastElementChild?.querySelector(".said");
      if (body) fill(body, said);
      scroll(false);
    }
  }
}

function body(asked) {
  const { system, ...numbers } = asked.settings;
  const messages = asked.turns
    .filter((said) => said.content)
    .map(({ role, content }) => ({ role, content }));
  if (system.trim()) messages.unshift({ role: "system", content: system });
  const request = { model: asked.model, messages, stream: true, stream_options: { include_usage: true } };
  for (const [name, value] of Object.entries(numbers)) {
    if (value !== "") request[name] = Number(value);
  }
  return request;
}

function waitingFor(name) {
  const model = models.find((one) => one.id === name);
  const loaded = !model || model.status.value === "loaded";
  status(loaded ? "Waiting for the first word …" : `${name} is loaded into memory …`);
}

function keep(asked) {
  try {
    store.keep(asked);
  } catch (error) {
    status(error.message);
  }
  showList();
}

function failed(error) {
  if (error.status === 401) openKeys();
  status(error instanceof ApiError ? error.message : "The server does not answer.");
}

async function importFile(input) {
  const [file] = input.files;
  input.value = "";
  try {
    const count = store.take(await file.text());
    status(count === 1 ? "One conversation is here." : `${count} conversations are here.`);
  } catch (error) {
    status(error.message);
  }
  showList();
}

// Small parts

function busy(is) {
  byId("send").hidden = is;
  byId("stop").hidden = !is;
  document.body.classList.toggle("busy", is);
}

function drawer(isOpen) {
  byId("drawer").setAttribute("aria-expanded", String(isOpen));
  document.body.classList.toggle("drawn", isOpen);
}

/** To the end, where the reader has not gone back to an earlier part. */
function scroll(always) {
  const turns = byId("turns");
  const near = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 120;
  if (always || near) turns.scrollTop = turns.scrollHeight;
}

const status = (text) => (byId("status").textContent = text);
const fileName = (title) => title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40) || "chat";
