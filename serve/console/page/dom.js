// Nodes, never markup: all text goes in as text, so nothing that a server, a title or a file says can become code.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const draw = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

/** Tell a screen reader what has changed. */
export function say(text) {
  byId("said").textContent = text;
}

/**
 * A table with a header for each column and each row.
 * On a phone a row becomes a list of its cells, unless the table is long; roles say what it is then, too.
 * columns: [{name, number, wide, cell: row => node or text}], the first one names the row; name: what the table is, for who hears it.
 */
function table(columns, rows, name, isLong) {
  const kind = (column) => (column.number ? "number" : column.wide ? "wide" : null);
  const head = columns.map((column) => el("th", { scope: "col", role: "columnheader", class: kind(column) }, column.name));
  const body = rows.map((row) =>
    el("tr", { role: "row" }, columns.map((column, place) => {
      const about = { class: kind(column), "data-column": column.name };
      const content = el("div", {}, column.cell(row));
      return place ? el("td", { ...about, role: "cell" }, content) : el("th", { ...about, scope: "row", role: "rowheader" }, content);
    })));
  return el("table", { role: "table", class: isLong ? null : "stacks" }, el("caption", { class: "hidden" }, name),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)), el("tbody", { role: "rowgroup" }, body));
}

/** A table that scrolls by itself where the screen is narrow, for the keyboard too. */
export const scrolling = (name, columns, rows, isLong = false) =>
  el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table(columns, rows, name, isLong));

/** Text in which `words` between backticks are code. */
export const marked = (text) => text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));

const NONE = "–";
const missing = (value) => value === null || value === undefined || Number.isNaN(value);

export const count = (value, digits = 0) =>
  missing(value) ? NONE : value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });

export const rate = (value) => (missing(value) ? NONE : count(value, value && value < 100 ? 1 : 0));

export const percent = (value, digits = 0) => (missing(value) ? NONE : `${count(100 * value, value ? digits : 0)} %`);

export function seconds(value) {
  if (missing(value)) return NONE;
  if (value < 1e-3) return `${count(value * 1e6)} µs`;
  if (value < 1) return `${count(value * 1e3, value < 1e-2 ? 1 : 0)} ms`;
  if (value < 120) return `${count(value, value < 10 ? 1 : 0)} s`;
  return value < 7200 ? `${count(value / 60)} min` : `${count(value / 3600, 1)} h`;
}

export function bytes(value) {
  if (missing(value)) return NONE;
  const step = value ? Math.min(4, Math.max(0, Math.floor(Math.log10(value) / 3))) : 0;
  return `${count(value / 1000 ** step, step && value / 1000 ** step < 10 ? 1 : 0)} ${["bytes", "kB", "MB", "GB", "TB"][step]}`;
}

/** A time as text or seconds since 1970, in the reader's own zone. */
export function when(value) {
  const time = typeof value === "number" ? new Date(value * 1000) : new Date(value);
  return Number.isNaN(time.getTime()) ? String(value ?? NONE) : time.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
