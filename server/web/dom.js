// Small parts of pages.

export const byId = (id) => document.getElementById(id);

/** An element; `parts` are elements and texts, `with_` its properties. */
export function make(tag, with_ = {}, ...parts) {
  const element = Object.assign(document.createElement(tag), with_);
  element.append(...parts.filter((part) => part !== null && part !== undefined));
  return element;
}

export function button(text, click, kind = "plain") {
  return make("button", { type: "button", className: kind, textContent: text, onclick: click });
}

/** A row of a table. */
export function row(...cells) {
  return make("tr", {}, ...cells.map((cell) => make("td", {}, cell ?? "–")));
}

export function filled(body, rows, empty, columns) {
  const none = make("td", { colSpan: columns, className: "hint", textContent: empty });
  body.replaceChildren(...(rows.length ? rows : [make("tr", {}, none)]));
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, count)) / 3));
  return `${Number((count / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${Number(seconds.toPrecision(2))} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** A file that the browser saves. */
export function download(name, value) {
  const blob = new Blob([JSON.stringify(value, null, 2)], { type: "application/json" });
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Calls `work` now and every so many seconds until the function it returns is called. */
export function repeatedly(work, seconds) {
  let timer = null;
  let over = false;
  const next = async () => {
    await work();
    if (!over) timer = setTimeout(next, seconds * 1000);
  };
  next();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}
