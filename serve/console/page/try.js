// One question to two models: what either puts first, what both have in common, and why.

import { ask } from "./api.js";
import { byId, count, el, percent, say } from "./dom.js";

const REASONS = 2, NEIGHBOURS = 5, MOST_HISTORY = 200;
const SOURCES = {
  SOURCE_PERSONAL: "from the user’s own vector", SOURCE_FOLD_IN: "from the history",
  SOURCE_POPULAR: "the most popular items", SOURCE_UPDATED: "from the user’s vector, moved by recent items",
};
let info = null, turn = 0;

const selector = (name) => {
  const [model, version] = byId(name).value.split("\n");
  return { name: model, version };
};
const subjectKind = () => new FormData(byId("try-form")).get("subject");
const history = () => [...new Set(byId("subject").value.split(",").map((each) => each.trim()).filter(Boolean))];
const cut = (error) => { byId("try-error").textContent = error?.message ?? ""; };

/** The model to put beside the default one: its teacher if that is served, else another model, else another version. */
function companion(models, first) {
  const others = models.filter((each) => each !== first);
  return others.find((each) => each.name === first.teacher) ?? others.find((each) => /teacher/i.test(each.name))
    ?? others.find((each) => each.name !== first.name) ?? others[0] ?? first;
}

export function showTry(_, found) {
  const before = info && [byId("left").value, byId("right").value];
  info = found;
  const option = (model) => el("option", { value: `${model.name}\n${model.version}` },
    `${model.name} ${model.version}${model.labels.length ? ` (${model.labels.join(", ")})` : ""}`);
  for (const side of ["left", "right"]) byId(side).replaceChildren(...info.models.map(option));
  const values = info.models.map((model) => `${model.name}\n${model.version}`);
  const first = info.models.find((each) => each.is_default && each.is_default_version) ?? info.models[0];
  const wanted = before?.every((each) => values.includes(each)) ? before
    : first ? [first, companion(info.models, first)].map((model) => `${model.name}\n${model.version}`) : [];
  [byId("left").value, byId("right").value] = [wanted[0] ?? "", wanted[1] ?? ""];
}

export function prepareTry() {
  byId("try-form").addEventListener("change", (event) => {
    if (event.target.name !== "subject") return;
    const isUser = subjectKind() === "user";
    byId("subject-label").textContent = isUser ? "User id" : "Item ids, separated by commas";
    byId("subject-hint").textContent = isUser ? "As your data has it." : "What somebody without a row has had: a vector is made of it (fold-in).";
    byId("subject").value = "";
  });
  byId("try-form").addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  byId("popular").addEventListener("click", popular);
}

function setHistory(ids) {
  const choice = document.querySelector('input[name="subject"][value="history"]');
  if (!choice.checked) choice.click();
  byId("subject").value = ids.join(", ");
}

/** Somebody unknown is answered with what is popular: a history to start from, for who knows no id. */
async function popular() {
  try {
    const body = { history: { item_ids: ["\u2014"] }, allow_fallback: true, k: 3, model: selector("left") };
    setHistory((await ask("recommend", body)).item_ids);
    await compare();
  } catch (error) {
    cut(error);
  }
}

function question(model) {
  const subject = subjectKind() === "user" ? { user_id: byId("subject").value.trim() } : { history: { item_ids: history() } };
  return { ...subject, k: Number(byId("k").value), include_titles: true, model };
}

/**
 * What the one who asks has had, with titles. Of a user the server tells no list, but answers with and without what it
 * has had: what only the first of both holds, it has had.
 */
async function had(asked) {
  const k = info.limits.max_k;
  if (asked.history) {
    const found = await ask("recommend", { ...asked, k: Math.max(1, Math.min(k, asked.history.item_ids.length)), include_seen: true, allow_item_ids: asked.history.item_ids });
    return found.item_ids.map((id, place) => ({ id, title: found.titles[place] }));
  }
  const [all, unseen] = await Promise.all([true, false].map((include) => ask("recommend", { ...asked, k, exact: true, include_seen: include })));
  const left = new Set(unseen.item_ids);
  return all.item_ids.map((id, place) => ({ id, title: all.titles[place] })).filter((item) => !left.has(item.id)).slice(0, MOST_HISTORY);
}

async function compare() {
  const mine = ++turn;
  cut(null);
  if (!byId("try-form").reportValidity()) return;
  say("Asking");
  const sides = ["left", "right"].map((name) => ({ model: selector(name) }));
  try {
    for (const side of sides) {
      side.asked = question(side.model);
      side.answer = await ask("recommend", side.asked);
    }
  } catch (error) {
    if (mine === turn) {
      byId("try-result").replaceChildren();
      cut(error);
    }
    return;
  }
  if (mine !== turn) return;
  render(sides);
  await explain(sides, mine);
}

function render(sides) {
  const [left, right] = sides.map((side) => new Set(side.answer.item_ids));
  const both = [...left].filter((id) => right.has(id));
  const longest = Math.max(left.size, right.size);
  const share = longest ? both.length / longest : 1;
  const k = Number(byId("k").value);
  const same = sides[0].model.name === sides[1].model.name && sides[0].model.version === sides[1].model.version;
  const lists = sides.map((side) => list(side, new Set(both)));
  byId("try-result").replaceChildren(
    el("p", { class: "agree", id: "agree" }, el("strong", {}, percent(share)), ` overlap@${k}: both have `, el("b", {}, `${both.length} of ${longest}`), " items in common",
      el("span", { class: "hint" }, same ? " (both sides are the same model)" : "", el("span", { class: "legend-dot", "aria-hidden": "true" }), "in both lists")),
    el("p", { class: "hint" }, "“near”: those of the asker’s own items that the model holds nearest to an item, with the cosine (1: the same direction). At the right: each model’s own score."),
    el("div", { id: "had" }), el("div", { class: "sides" }, lists));
  say(`Overlap ${percent(share)}: ${both.length} of ${longest} items are in both lists.`);
}

function list(side, both) {
  const { answer, model } = side;
  const known = info.models.find((each) => each.name === model.name && each.version === model.version);
  const spent = `computed in ${count(answer.timings.encode_us + answer.timings.search_us + answer.timings.filter_us)} µs`;
  side.rows = answer.item_ids.map((id, place) => row(side, id, answer.titles[place], answer.scores[place], place, both.has(id)));
  return el("article", { class: "list", "aria-label": `${model.name} ${model.version}` },
    el("h3", {}, `${answer.model} ${answer.version}`),
    el("p", {}, `${known ? `${count(known.dim)} numbers an item; ` : ""}${SOURCES[answer.source] ?? answer.source}; ${spent}`),
    answer.unknown_item_ids.length ? el("p", { class: "error" }, `This model does not know ${answer.unknown_item_ids.join(", ")}.`) : null,
    answer.item_ids.length ? el("ol", { class: "items" }, side.rows) : el("p", {}, "No item is left to recommend."));
}

const named = (id, title) => [el("b", {}, title || id), title ? el("span", { class: "id" }, id) : null];

function row(side, id, title, score, place, inBoth) {
  const why = el("p", { class: "why" });
  const near = el("ul", { class: "near", hidden: true });
  const button = el("button", { type: "button", class: "plain", "aria-expanded": "false", onclick: () => similar(side, id, near, button) },
    "Similar items", el("span", { class: "hidden" }, ` to ${title || id}`));
  const add = el("button", { type: "button", class: "plain", onclick: () => { setHistory([...(subjectKind() === "history" ? history() : []), id]); compare(); } },
    subjectKind() === "history" ? "Add to the history" : "Ask by it", el("span", { class: "hidden" }, `: ${title || id}`));
  return el("li", { class: inBoth ? "both" : null, "data-item": id },
    el("span", { class: "place" }, inBoth ? el("span", { class: "hidden" }, "in both lists, ") : null, String(place + 1)),
    el("div", { class: "title" }, ...named(id, title), why, el("div", { class: "tools" }, button, add), near),
    el("span", { class: "score", title: "the model’s own score" }, count(score, 2)));
}

async function similar(side, id, near, button) {
  near.hidden = !near.hidden;
  button.setAttribute("aria-expanded", String(!near.hidden));
  if (near.hidden || near.childElementCount) return;
  try {
    const found = await ask("similarItems", { item_id: id, k: NEIGHBOURS, include_titles: true, model: side.model });
    near.replaceChildren(...found.item_ids.map((each, place) => el("li", {}, ...named(each, found.titles[place]), ` ${count(found.scores[place], 2)}`)));
  } catch (error) {
    near.replaceChildren(el("li", {}, error.message));
  }
}

/** Beside each item, what of the asker's own items the model holds nearest to it. */
async function explain(sides, mine) {
  for (const side of sides) {
    let owned = [];
    try {
      owned = side.answer.source === "SOURCE_POPULAR" ? [] : await had(side.asked);
    } catch { /* said below, by the lack of reasons */ }
    if (mine !== turn) return;
    if (side === sides[0]) byId("had").replaceChildren(possessions(owned, side));
    if (!owned.length) continue;
    const titles = new Map(owned.map((item) => [item.id, item.title || item.id]));
    for (const node of side.rows) {
      const id = node.dataset.item;
      try {
        const body = { item_id: id, allow_item_ids: owned.map((item) => item.id), k: REASONS, model: side.model };
        const found = await ask("similarItems", body);
        if (mine !== turn) return;
        const words = found.item_ids.map((each, place) => `${titles.get(each)} (${count(found.scores[place], 2)})`);
        if (words.length) node.querySelector(".why").textContent = `near ${words.join(", ")}`;
      } catch {
        break;
      }
    }
  }
  say("Reasons are there: beside each item, what it is near to.");
}

function possessions(owned, side) {
  if (!owned.length) return el("p", { class: "hint" }, "Nothing is known of what this asker has had, so no reasons can be given.");
  const isUser = "user_id" in side.asked;
  const text = isUser ? `What this user has had: ${owned.length} items, those first that ${side.model.name} ${side.model.version} likes best for it` : `The history: ${owned.length} ${owned.length === 1 ? "item" : "items"}`;
  return el("details", { open: !isUser }, el("summary", {}, text),
    el("ul", { class: "chips" }, owned.map((item) => el("li", { class: "tag" }, item.title || item.id))));
}
