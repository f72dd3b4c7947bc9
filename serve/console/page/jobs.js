// The batch jobs: what their latest runs did, step by step, and what the gate measured.

import { ask } from "./api.js";
import { byId, count, el, scrolling, seconds, when } from "./dom.js";

const KINDS = { published: "good", done: "good", held: "watch", running: "", failed: "bad", unreadable: "bad", "nothing-to-do": "", waiting: "", skipped: "" };
const WORDS = { published: "published", held: "held by the gate", "nothing-to-do": "nothing to do" };
let shown = "";

const tag = (outcome) => el("span", { class: `tag ${KINDS[outcome] ?? ""}` }, WORDS[outcome] ?? outcome ?? "");

export async function showJobs() {
  const view = byId("jobs-view");
  let found;
  try {
    found = await ask("jobs");
  } catch (error) {
    view.replaceChildren(el("p", { class: "error" }, error.message));
    return;
  }
  const now = JSON.stringify(found);
  if (now === shown && view.childElementCount) return;
  shown = now;
  if (!found.configured) view.replaceChildren(el("p", { class: "notice" }, "This server was not told of jobs. ", el("code", {}, "lowpass job run"), " prepares, trains, exports and publishes by a gate; ", el("code", {}, "serve --jobs DIR"), " shows its runs here."));
  else if (!found.jobs.length) view.replaceChildren(el("p", { class: "notice" }, "No job has run yet."));
  else view.replaceChildren(...found.jobs.map(job));
}

function job({ job: name, runs }) {
  const [latest, ...earlier] = runs;
  return el("article", { class: "job", "aria-label": name }, el("h3", {}, `${name} `, latest ? tag(latest.outcome) : null),
    latest ? run(latest) : el("p", { class: "inner" }, "It has not run yet."),
    earlier.length ? el("div", { class: "inner" }, el("h4", {}, "Earlier runs"), earlier.map((each) =>
      el("details", {}, el("summary", {}, `${each.started ? when(each.started) : each.run} `, tag(each.outcome)), run(each)))) : null);
}

function lasted(each) {
  const time = (new Date(each.ended) - new Date(each.started)) / 1000;
  return each.ended && time >= 0 ? seconds(time) : "not over";
}

function run(each) {
  const facts = [
    ["Run", each.run], ["Started", each.started ? when(each.started) : "–"], ["Took", lasted(each)],
    ["Published", each.published ? `${each.published.model} ${each.published.version}` : "nothing"],
    ...(each.says ? [["Why", each.says]] : []),
    ...each.warnings.map((text) => ["Beside", text]),
  ];
  return [
    el("div", { class: "inner" }, el("dl", { class: "facts" }, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))),
    each.steps.length ? scrolling("Steps", [
      { name: "Step", cell: (step) => step.name }, { name: "Outcome", cell: (step) => tag(step.outcome) },
      { name: "Took", number: true, cell: (step) => (step.reused ? "reused" : seconds(step.seconds)) }, { name: "Says", wide: true, cell: (step) => step.says ?? "" },
    ], each.steps) : null,
    each.gate.length ? scrolling("Gate", [
      { name: "Gate", cell: (check) => check.check }, { name: "Outcome", cell: verdict },
      { name: "Measured", number: true, cell: (check) => number(check.measured) }, { name: "Bound", number: true, cell: (check) => number(check.bound) },
      { name: "What to look at", wide: true, cell: (check) => check.look ?? "" },
    ], each.gate) : null,
  ];
}

function verdict(check) {
  if (check.passed) return el("span", { class: check.bound === null ? "tag" : "tag good" }, check.bound === null ? "off" : "passed");
  return el("span", { class: "tag bad" }, "did not pass");
}

const number = (value) => (typeof value === "number" ? count(value, Number.isInteger(value) ? 0 : 3) : value ?? "–");
