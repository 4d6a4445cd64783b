// The page: which view is shown, and the keys.

import { ask, ApiError, keepKey, keyOf } from "./api.js";
import { byId, repeatedly } from "./dom.js";
import * as activity from "./activity.js";
import * as chat from "./chat.js";
import * as models from "./models.js";

const VIEWS = { chat, models, activity };
const HEALTH_SECONDS = 5;
let leave = () => {};

function show() {
  const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "chat";
  leave();
  for (const other of Object.keys(VIEWS)) byId(`${other}-view`).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("drawer").hidden = name !== "chat";
  leave = VIEWS[name].enter() ?? (() => {});
}

function openKeys() {
  for (const kind of ["api", "admin"]) byId(`${kind}-key`).value = keyOf(kind);
  byId("keys").showModal();
}

byId("open-keys").onclick = openKeys;
byId("keys").onclose = () => {
  if (byId("keys").returnValue !== "save") return;
  for (const kind of ["api", "admin"]) keepKey(kind, byId(`${kind}-key`).value.trim());
  show();
};
window.addEventListener("hashchange", show);

repeatedly(async () => {
  try {
    await ask("GET", "/livez");
    byId("offline").hidden = true;
  } catch (error) {
    byId("offline").hidden = error instanceof ApiError;
  }
}, HEALTH_SECONDS);

chat.start({ openKeys });
models.start();
show();
