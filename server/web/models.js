// The models: in memory or not, what they take, and how others are fetched.

import { ask, events } from "./api.js";
import { button, byId, bytes, duration, filled, make, repeatedly, row } from "./dom.js";

const LOOK_SECONDS = 2;
const busy = new Set();
let pulling = null;

export function start() {
  byId("pull").onsubmit = (event) => {
    event.preventDefault();
    fetchModel(byId("pull-name").value.trim());
  };
  byId("pull-stop").onclick = () => pulling?.abort();
}

export function enter() {
  return repeatedly(look, LOOK_SECONDS);
}

async function look() {
  try {
    const told = await ask("GET", "/admin/models");
    const { used_bytes: used, budget_bytes: budget } = told.memory;
    byId("memory-meter").value = budget ? used / budget : 0;
    byId("memory-text").textContent = `${bytes(used)} of ${bytes(budget)} are taken`;
    filled(byId("models"), told.data.map(line), "No model is served.", 7);
    refused("");
  } catch (error) {
    refused(error.message);
  }
}

function refused(message) {
  byId("models-refused").textContent = message;
  byId("models-refused").hidden = !message;
}

function line(model) {
  const shape = model.slots ? `${model.slots} × ${model.context}` : null;
  const made = row(
    name(model),
    model.status,
    `${model.measured ? "" : "about "}${bytes(model.bytes)}`,
    model.waiting ? `${model.requests}, ${model.waiting} waiting` : String(model.requests),
    model.replicas.length > 1 ? `${model.replicas.length} × (${shape})` : shape,
    leaves(model),
    act(model),
  );
  made.dataset.model = model.id;
  return made;
}

function name(model) {
  const told = [model.quantization, ...model.aliases].filter(Boolean).join(", ");
  const error = model.error ? make("div", { className: "error", textContent: model.error }) : null;
  return make("div", {}, model.id, told ? make("small", { textContent: ` ${told}` }) : null, error);
}

function leaves(model) {
  if (model.status !== "loaded") return null;
  if (model.pinned) return "never";
  if (model.unloads_in_seconds !== null) return `in ${duration(model.unloads_in_seconds)}`;
  return "when others need it";
}

function act(model) {
  const way = model.status === "loaded" ? "unload" : "load";
  const made = button(way === "load" ? "Load" : "Unload", () => move(model.id, way));
  made.disabled = busy.has(model.id) || model.status === "loading" || (way === "unload" && model.pinned);
  return made;
}

async function move(model, way) {
  busy.add(model);
  const asked = ask("POST", `/admin/models/${way}`, { model });
  look();
  let message = "";
  try {
    await asked;
  } catch (error) {
    message = error.message;
  }
  busy.delete(model);
  await look();
  if (message) refused(message);
}

async function fetchModel(model) {
  pulling?.abort();
  const own = (pulling = new AbortController());
  byId("pull-stop").hidden = byId("pull-progress").hidden = false;
  let last = "";
  try {
    for await (const told of events("/admin/models/pull", { model }, own)) {
      last = told.model;
      showProgress(told);
    }
    pullState(`${last} is here. Name it in the setting "models" and reload, and it is served.`);
  } catch (error) {
    const stopped = error.name === "AbortError";
    pullState(stopped ? "Stopped. What came is kept: fetch it again to go on." : error.message);
  } finally {
    if (pulling === own) byId("pull-stop").hidden = byId("pull-progress").hidden = true;
  }
}

function showProgress({ status, model, completed, total }) {
  const bar = byId("pull-progress");
  if (total) {
    bar.max = total;
    bar.value = completed;
  } else bar.removeAttribute("value");
  pullState(`${model}: ${status}${total ? `, ${bytes(completed)} of ${bytes(total)}` : ""}`);
}

const pullState = (text) => (byId("pull-state").textContent = text);
