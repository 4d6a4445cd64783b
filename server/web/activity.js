// The requests inside and those that ended last.

import { ask } from "./api.js";
import { button, byId, duration, filled, make, repeatedly, row } from "./dom.js";

const LOOK_SECONDS = 1;

export function enter() {
  return repeatedly(look, LOOK_SECONDS);
}

async function look() {
  const refused = byId("activity-refused");
  try {
    const told = await ask("GET", "/admin/requests");
    filled(byId("running"), told.data.map(running), "Nothing runs.", 8);
    filled(byId("recent"), told.recent.map(ended), "Nothing has been asked yet.", 11);
    refused.hidden = true;
  } catch (error) {
    refused.textContent = error.message;
    refused.hidden = false;
  }
}

function running(one) {
  return row(
    short(one.id),
    one.model,
    one.status,
    duration(one.seconds),
    tokens(one.prompt_tokens),
    tokens(one.completion_tokens),
    one.client,
    button("Cancel", async (event) => {
      event.target.disabled = true;
      try {
        await ask("DELETE", `/admin/requests/${encodeURIComponent(one.id)}`);
      } catch {
        // It ended meanwhile; the next look shows it.
      }
      await look();
    }),
  );
}

function ended(one) {
  const result = row(
    new Date(one.ended * 1000).toLocaleTimeString(),
    short(one.id),
    one.model,
    one.error ?? one.finish ?? String(one.status ?? ""),
    milliseconds(one.queue_ms),
    milliseconds(one.ttft_ms),
    tokens(one.prompt_tokens),
    one.cached_tokens === undefined ? null : String(one.cached_tokens),
    tokens(one.completion_tokens),
    one.tokens_per_second === undefined ? null : String(one.tokens_per_second),
    milliseconds(one.duration_ms),
  );
  if (one.error) result.className = "failed";
  return result;
}

/** The whole id shows where the mouse rests. */
const short = (id) => make("span", { title: id, textContent: id.length > 13 ? `${id.slice(0, 12)}…` : id });
const tokens = (count) => (count === null || count === undefined ? null : `${count} tokens`);
const milliseconds = (count) => (count === undefined ? null : duration(count / 1000));
