// Conversations, in this browser alone: one entry of its storage each.

const PREFIX = "ingle.chat.";

/** The last used first. */
export function all() {
  const found = Object.keys(localStorage)
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => parsed(localStorage.getItem(key)))
    .filter((chat) => chat !== null);
  return found.sort((one, other) => other.at - one.at);
}

export function fresh(model = "") {
  const settings = { system: "", temperature: "", top_p: "", max_tokens: "", seed: "" };
  return { id: crypto.getRandomValues(new Uint32Array(3)).join("-"), at: 0, title: "", model, settings, turns: [] };
}

/** Throws where the browser's storage is full. */
export function keep(chat) {
  chat.at = Date.now();
  try {
    localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
  } catch {
    throw new Error("The browser's storage is full: export and delete some conversations.");
  }
}

export function forget(id) {
  localStorage.removeItem(PREFIX + id);
}

/** Takes conversations of an exported file; how many. Throws where it is none. */
export function take(text) {
  let given;
  try {
    given = JSON.parse(text);
  } catch {
    throw new Error("This file is no export of conversations: it is no JSON.");
  }
  const chats = (Array.isArray(given) ? given : [given]).map(checked);
  if (!chats.length || chats.includes(null)) {
    throw new Error("This file is no export of conversations.");
  }
  for (const chat of chats) keep(chat);
  return chats.length;
}

function parsed(text) {
  try {
    return checked(JSON.parse(text));
  } catch {
    return null;
  }
}

/** With every part that a conversation has, or null. */
function checked(chat) {
  const turns = chat?.turns;
  const right = (turn) => typeof turn?.content === "string" && ["user", "assistant"].includes(turn.role);
  if (!Array.isArray(turns) || !turns.every(right)) return null;
  const made = fresh();
  return {
    id: /^[\w-]{1,64}$/.test(chat.id) ? chat.id : made.id,
    at: Number(chat.at) || 0,
    title: String(chat.title ?? ""),
    model: String(chat.model ?? ""),
    settings: { ...made.settings, ...chat.settings },
    turns,
  };
}
