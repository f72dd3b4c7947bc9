// The frontier that 'lowpass frontier' measured: what each candidate keeps and costs, and which one it chose.

import { ask } from "./api.js";
import { plot } from "./charts.js";
import { byId, count, el, marked, percent, scrolling } from "./dom.js";

let drawn = null;

/** A chart is as wide as its place, with letters of one size; so it is drawn anew where that changes. */
addEventListener("resize", () => {
  if (drawn && !byId("frontier").hidden) byId("frontier-view").replaceChildren(...page(drawn));
});

export async function showFrontier() {
  const view = byId("frontier-view");
  drawn = null;
  let found;
  try {
    found = await ask("frontier");
  } catch (error) {
    view.replaceChildren(el("p", { class: "error" }, error.message));
    return;
  }
  if (!found.configured) view.replaceChildren(el("p", { class: "notice" }, "This server was not told of a frontier. ", el("code", {}, "lowpass frontier"), " measures every candidate (how small, how good, how fast); ", el("code", {}, "serve --frontier DIR"), " shows what it wrote here."));
  else if (found.error) view.replaceChildren(el("p", { class: "error" }, found.error));
  else {
    drawn = found.document;
    view.replaceChildren(...page(drawn));
  }
}

function kindOf(row, document) {
  if (row.name === document.recommended) return "chosen";
  return row.pareto ? (row.servable ? "pareto" : "unservable") : "beaten";
}

function page(document) {
  const { data = {}, teacher = {}, limits = {} } = document;
  const named = new Set([document.recommended, teacher.candidate]);
  const points = document.candidates.filter((row) => row.bytes_per_item > 0).map((row) => ({
    name: row.name, x: row.bytes_per_item, y: row.kept, kind: kindOf(row, document), labelled: named.has(row.name), isBest: row.pareto && row.servable,
  }));
  const [first, ...others] = document.reasons ?? [];
  const bounds = [
    limits.min_kept == null ? null : `at least ${percent(limits.min_kept)} kept`,
    limits.max_bytes_per_item == null ? null : `at most ${count(limits.max_bytes_per_item)} bytes an item`,
    limits.max_p99_ms == null ? null : `p99 of at most ${limits.max_p99_ms} ms`,
  ].filter(Boolean);
  return [
    el("p", { class: "lead" }, `${data.name ?? ""}: ${count(data.users ?? null)} users, ${count(data.items ?? null)} items. Every candidate was built and measured on held-out data; the choice is the smallest that cannot be told from the best${bounds.length ? `, with ${bounds.join(", ")}` : ""}.`),
    el("div", { class: "notice reasons" }, el("p", {}, el("strong", {}, marked(first ?? "Nothing fits the limits."))), el("ul", {}, others.map((each) => el("li", {}, marked(each))))),
    el("figure", {}, points.length ? plot(points, `Quality kept against bytes an item for ${points.length} candidates; the recommended one is ${document.recommended ?? "none"}`, Math.min(860, byId("content").clientWidth)) : null,
      el("figcaption", {}, "Up is better, left is smaller. Orange: recommended. Filled: nothing beats it in quality, bytes and time at once. Hollow: likewise, but it cannot be served. Grey: beaten. 100 % is the teacher.")),
    candidates(document),
    el("p", { class: "hint note" }, "Kept: share of the teacher’s validation Recall@20. Times are of one search, on the machine where it was measured."),
    (document.commands ?? []).length ? el("h3", {}, "What to run next") : null,
    (document.commands ?? []).length ? el("pre", { tabindex: "0" }, document.commands.join("\n")) : null,
  ].filter(Boolean);
}

function candidates(document) {
  const rows = [...document.candidates].sort((a, b) => Number(b.name === document.recommended) - Number(a.name === document.recommended) || Number(b.pareto) - Number(a.pareto) || a.bytes_per_item - b.bytes_per_item);
  const words = { chosen: ["tag good", "recommended"], pareto: ["tag", "not beaten"], unservable: ["tag watch", "not servable"] };
  return scrolling("Candidates", [
    { name: "Candidate", cell: (row) => row.name },
    { name: "Verdict", cell: (row) => { const found = words[kindOf(row, document)]; return found ? el("span", { class: found[0] }, found[1]) : ""; } },
    { name: "Kept", number: true, cell: (row) => percent(row.kept, 1) },
    { name: "95 % interval", number: true, cell: (row) => (row.kept_interval ? `${count(100 * row.kept_interval[0])}–${count(100 * row.kept_interval[1])} %` : "–") },
    { name: "Bytes an item", number: true, cell: (row) => count(row.bytes_per_item) },
    { name: "Median, µs", number: true, cell: (row) => count(row.latency_us?.p50 ?? null) },
    { name: "p99, µs", number: true, cell: (row) => count(row.latency_us?.p99 ?? null) },
    { name: "Taught by", cell: (row) => row.taught_by ?? "–" },
  ], rows, true);
}
