// Text of a model as it is meant to look. It is nobody's code: marked reads it, DOMPurify lets
// through what only shows text, and the page's policy would run nothing of the rest.

import { marked } from "./vendor/marked.js";
import DOMPurify from "./vendor/purify.js";
import { button } from "./dom.js";

const ALLOWED = {
  RETURN_DOM_FRAGMENT: true,
  USE_PROFILES: { html: true },
  FORBID_TAGS: ["img", "picture", "video", "audio", "source", "style", "form", "input", "button",
    "textarea", "select", "dialog", "iframe", "object", "embed", "link", "map", "area"],
  FORBID_ATTR: ["style", "class", "id", "name"],
  ALLOW_DATA_ATTR: false,
};

/** Elements; nothing in them is loaded from anywhere. */
export function rendered(text) {
  const found = DOMPurify.sanitize(marked.parse(text, { gfm: true, breaks: true }), ALLOWED);
  for (const link of found.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const code of found.querySelectorAll("pre")) {
    const said = code.textContent;
    code.prepend(copyButton(() => said));
  }
  return found;
}

/** Copies what `text` gives; says for a moment that it did. */
export function copyButton(text) {
  const copy = button("Copy", async () => {
    try {
      await copied(text());
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Cannot copy";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  }, "plain copy");
  return copy;
}

/** Pages that are not from localhost or https have no clipboard of their own. */
async function copied(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser refused");
}
