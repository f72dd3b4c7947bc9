// What serves, how well, how fast, and what is wrong.

import { meter, sparkline } from "./charts.js";
import { byId, bytes, count, el, percent, rate, scrolling, seconds } from "./dom.js";

const RECENT = 12;

const last = (values) => values.at(-1) ?? null;
const highest = (values) => Math.max(0, ...values.filter((value) => value !== null));
const recent = (values) => values.slice(-RECENT);
/** The latest value that there is, of the last minute. */
const latest = (values) => recent(values).filter((value) => value !== null).at(-1) ?? null;
const sum = (values) => values.reduce((all, value) => all + value, 0);

export function showOverview(overview, info) {
  const model = info.models.find((each) => each.is_default && each.is_default_version) ?? info.models[0];
  byId("conditions").replaceChildren(conditions(overview.conditions));
  byId("cards").replaceChildren(...cards(overview, model));
  const minutes = (overview.history.at.length * overview.period) / 60;
  byId("overview-window").textContent = `Lines show the last ${minutes < 1.5 ? "minute" : `${Math.round(minutes)} minutes`}; now is at the right.${minutes < 30 ? " Half an hour is kept." : ""}`;
  byId("serving").replaceChildren(...serving(overview, info));
  byId("shadows").replaceChildren(...shadows(overview.history.shadows));
}

function conditions(found) {
  if (!found.length)
    return el("p", { class: "well" }, el("span", { class: "dot good", "aria-hidden": "true" }), "Nothing is wrong that this server can see.");
  return el("ul", { class: "conditions", "aria-label": "To look at" }, found.map((each) =>
    el("li", { class: each.severity },
      el("p", {}, el("strong", {}, each.severity === "bad" ? "Now: " : "Watch: "), each.says), el("p", {}, each.look))));
}

function card(title, value, note, chart) {
  return el("article", { class: "card" }, el("h3", {}, title), el("strong", {}, value), el("p", {}, note), chart);
}

function line(name, values, shown, second) {
  const text = `${name} lately: now ${shown(last(values))}, highest ${shown(highest(values))}`;
  const lines = [{ values, kind: "first" }, ...(second ? [{ values: second, kind: "second" }] : [])];
  return sparkline(lines, text);
}

function cards(overview, model) {
  const history = overview.history;
  const quality = model?.quality ?? {};
  const asked = sum(recent(history.rate));
  const share = (values) => (asked ? sum(recent(values)) / asked : null);
  const trouble = history.failed.map((value, index) => value + history.refused[index]);
  const kept = "kept_recall" in quality;
  return [
    card(kept ? "Quality kept of the teacher" : "Recall@20", kept ? percent(quality.kept_recall, 0) : count(quality["recall@20"], 3),
      !model ? "" : kept ? `${model.name} ${model.version}: Recall@20 ${count(quality["recall@20"], 3)}, its teacher ${count(quality["teacher_recall@20"], 3)}; measured at export`
        : `${model.name} ${model.version}, measured at export`, kept ? meter(quality.kept_recall, `${percent(quality.kept_recall)}; the mark is the teacher, 100 %`) : null),
    card("Requests a second", rate(last(history.rate)), `highest ${rate(highest(history.rate))}`, line("Requests a second", history.rate, rate)),
    card("Time to answer, p99", seconds(latest(history.p99)),
      el("span", {}, el("span", { class: "key-first" }, "p99"), `, highest ${seconds(highest(history.p99))}; `, el("span", { class: "key-second" }, "median"), ` ${seconds(latest(history.p50))}`),
      line("Time to answer, 99th percentile", history.p99, seconds, history.p50)),
    card("Failed or refused", asked ? percent(share(trouble), 1) : "–",
      asked ? `of the last minute: failed ${percent(share(history.failed), 1)}, refused ${percent(share(history.refused), 1)}` : "nobody asked in the last minute",
      line("Failed or refused a second", trouble, rate)),
    card("Processor", last(history.cpu) === null ? "–" : `${count(last(history.cpu), 2)} cores`, `${count(last(history.in_flight))} requests in work or waiting`, line("Cores in use", history.cpu, (value) => count(value, 2))),
    card("Memory", bytes(last(history.memory)), "resident, models included", line("Memory", history.memory, bytes)),
  ];
}

const labels = (model) => [
  ...(model.is_default_version ? [el("span", { class: "tag good" }, model.is_default ? "answers by default" : "default of its name")] : []),
  ...model.labels.map((label) => el("span", { class: "tag label" }, label)),
];

function serving(overview, info) {
  const now = (model, name) => {
    const values = overview.history.models.map((each) => each[model.name]?.[name] ?? null);
    return name === "rate" ? last(values) : latest(values);
  };
  const quality = (name) => (model) => count(model.quality[name] ?? null, 3);
  const columns = [
    { name: "Model", cell: (model) => `${model.name} ${model.version}` },
    { name: "Labels", cell: labels },
    { name: "Recall@20", number: true, cell: quality("recall@20") },
    { name: "Kept", number: true, cell: (model) => percent(model.quality.kept_recall ?? null) },
    { name: "Numbers an item", number: true, cell: (model) => count(model.dim) },
    { name: "Index bytes an item", number: true, cell: (model) => count(model.index.bytes_per_item) },
    { name: "Items", number: true, cell: (model) => count(Number(model.items)) },
    { name: "Requests/s", number: true, cell: (model) => (model.is_default_version ? rate(now(model, "rate")) : "") },
    { name: "Median", number: true, cell: (model) => (model.is_default_version ? seconds(now(model, "p50")) : "") },
    { name: "p99", number: true, cell: (model) => (model.is_default_version ? seconds(now(model, "p99")) : "") },
  ];
  return [scrolling("Loaded models", columns, info.models),
    el("p", { class: "hint note" }, "Kept: the share of its teacher’s Recall@20 that a model has. Requests and times are of all versions of a name together, in the last moments.")];
}

function shadows(history) {
  const pairs = [...new Set(history.flatMap((each) => Object.keys(each)))];
  if (!pairs.length) return [];
  const rows = pairs.map((pair) => {
    const told = history.filter((each) => pair in each).map((each) => each[pair]);
    const compared = sum(told.map((each) => each.compared));
    return { pair: pair.replaceAll(":", " ").replace(/ (\S+ \S+)$/, " beside $1"), compared, overlap: sum(told.map((each) => each.overlap * each.compared)) / compared };
  });
  const columns = [
    { name: "Live, beside its shadow", cell: (row) => row.pair },
    { name: "Lists compared", number: true, cell: (row) => count(row.compared) },
    { name: "Overlap", number: true, cell: (row) => percent(row.overlap) },
  ];
  const caption = "A shadow answers a share of the requests again, unseen by callers. Overlap: the share of the list’s items that both have. Of the last half hour.";
  return [el("h3", {}, "Beside a shadow"), scrolling("Shadows", columns, rows), el("p", { class: "hint note" }, caption)];
}
