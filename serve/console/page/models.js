// Versions and what is done to them: each change names the version, says what will happen, and has to be typed.

import { ask } from "./api.js";
import { byId, count, el, percent, say, scrolling, seconds } from "./dom.js";

const LABELS = ["stable", "canary"];
let shown = "", refresh = () => {}, mayChange = false;

export async function showModels(overview, info, again) {
  refresh = again;
  mayChange = overview.may_change;
  const role = byId("models-role");
  role.hidden = mayChange;
  role.textContent = "You may look and not change: either this key is not an operator’s, or this server has no repository.";
  let found;
  try {
    found = await ask("listModels", {});
    byId("models-error").textContent = "";
  } catch (error) {
    byId("models-error").textContent = error.status === 404 ? "This server has no repository: there is nothing to list." : error.message;
    return;
  }
  const now = JSON.stringify([found.versions.map((each) => ({ ...each, leases: 0 })), found.routing, mayChange]);
  if (now === shown && byId("models-list").childElementCount) return;  // what somebody types stays
  shown = now;
  const names = [...new Set(found.versions.map((each) => each.model))];
  byId("models-list").replaceChildren(...names.map((name) => model(name, found, info)));
}

const labelled = (versions, label) => versions.find((each) => each.labels.includes(label));

function model(name, found, info) {
  const versions = found.versions.filter((each) => each.model === name);
  const routing = found.routing.find((each) => each.model === name);
  const summary = (each) => info.models.find((loaded) => loaded.name === name && loaded.version === each.version);
  const columns = [
    { name: "Version", cell: (each) => each.version },
    { name: "State", wide: versions.some((each) => each.error || each.differs), cell: state },
    { name: "Labels", cell: (each) => each.labels.map((label) => el("span", { class: "tag label" }, label)) },
    { name: "Recall@20", number: true, cell: (each) => count(summary(each)?.quality["recall@20"] ?? null, 3) },
    { name: "Kept", number: true, cell: (each) => percent(summary(each)?.quality.kept_recall ?? null) },
    { name: "Loaded in", number: true, cell: (each) => (each.loaded ? seconds(each.load_seconds) : "–") },
    { name: "Change", cell: (each) => tools(each, versions) },
  ];
  return el("article", { class: "model", "aria-label": name },
    el("h3", {}, name), scrolling(`Versions of ${name}`, columns, versions),
    el("div", { class: "inner" }, rollback(name, versions), el("div", { class: "routing" }, split(name, versions, routing), shadow(name, routing, info))));
}

function state(each) {
  const tags = [];
  if (each.is_default) tags.push(el("span", { class: "tag good" }, "answers by default"));
  else if (each.loaded) tags.push(el("span", { class: "tag" }, "loaded"));
  else tags.push(el("span", { class: "tag" }, "on disk"));
  if (each.differs) tags.push(el("p", { class: "why-failed" }, each.differs));
  if (each.error) tags.push(el("span", { class: "tag bad" }, "could not be loaded"), el("p", { class: "why-failed" }, each.error));
  return tags;
}

const button = (text, about, action, disabled = false) =>
  el("button", { type: "button", class: "small", disabled: disabled || !mayChange, onclick: action }, text, el("span", { class: "hidden" }, ` ${about}`));

function tools(each, versions) {
  const about = `${each.model} ${each.version}`;
  const moves = LABELS.filter((label) => !each.labels.includes(label)).map((label) => button(`Make ${label}`, `of ${each.model}: ${each.version}`, () => {
    const before = labelled(versions, label);
    change({
      title: `Move ${label} of ${each.model} to version ${each.version}`,
      text: before ? `${label} is version ${before.version} now.` : `There is no ${label} now.`,
      effect: label === "stable" ? `Version ${each.version} will answer every request that names no version, once it is loaded and verified; ${before ? `${before.version} becomes “previous”, for a rollback.` : ""}`
        : `Requests that ask for ${label}, and its share of a split, will get version ${each.version}.`,
      word: each.version, path: "setLabel", body: { model: each.model, label, revision: each.version },
      done: `${label} of ${each.model} is version ${each.version}.`,
    });
  }));
  const load = each.loaded
    ? button("Unload", about, () => change({
      title: `Unload ${about}`, text: "It stays on disk, with its labels.", effect: "Requests that ask for this version are refused from then on; those under way are answered.",
      word: each.version, path: "unloadModel", body: { model: each.model, version: each.version }, done: `${about} is unloaded.` }), each.is_default)
    : button("Load", about, () => change({
      title: `Load ${about}`, text: "Beside what is served.", effect: "Requests that ask for this version by its number will be answered; nothing changes for others. It takes its share of memory.",
      word: each.version, path: "loadModel", body: { model: each.model, revision: each.version }, done: `${about} is loaded.` }));
  return el("div", { class: "tools" }, moves, load);
}

function rollback(name, versions) {
  const stable = labelled(versions, "stable"), previous = labelled(versions, "previous");
  if (!previous) return el("p", { class: "hint" }, "Nothing to roll back to: “stable” has not been moved yet.");
  return el("p", {}, button(`Roll back to ${previous.version}`, `of ${name}`, () => change({
    title: `Roll back ${name} to version ${previous.version}`, text: `stable is version ${stable?.version ?? "none"} now.`,
    effect: `Version ${previous.version} will answer again; ${stable?.version ?? "what was stable"} becomes “previous”.`,
    word: previous.version, path: "rollback", body: { model: name }, done: `${name} is rolled back to version ${previous.version}.` })));
}

function split(name, versions, routing) {
  const labels = [...new Set(versions.flatMap((each) => each.labels))].filter((label) => label !== "stable");
  const shares = Object.entries(routing?.shares ?? {});
  const now = shares.length ? shares.map(([label, share]) => `${label} (version ${labelled(versions, label)?.version ?? "?"}) answers ${percent(share)} of the users`).join("; ") : "None: the default version answers everybody.";
  const label = el("select", { id: `split-${name}-label` }, labels.map((each) => el("option", {}, each)));
  const share = el("input", { id: `split-${name}-share`, type: "number", min: "1", max: "100", value: "5", required: true });
  const form = el("form", { onsubmit: (event) => {
    event.preventDefault();
    const version = labelled(versions, label.value)?.version;
    change({ title: `Let ${label.value} (version ${version}) answer ${share.value} % of the users of ${name}`, text: now,
      effect: "A user always meets the same version. The others get the default version.", word: version, path: "setSplit",
      body: { model: name, shares: { [label.value]: Number(share.value) / 100 } }, done: `${label.value} answers ${share.value} % of ${name}.` });
  } }, el("div", { class: "field" }, el("label", { for: label.id }, "Label"), label), el("div", { class: "field" }, el("label", { for: share.id }, "Share, %"), share),
  el("button", { class: "small", disabled: !mayChange }, "Split"),
  shares.length ? button("End the split", `of ${name}`, () => change({ title: `End the split of ${name}`, text: now, effect: "The default version answers everybody.",
    word: name, path: "setSplit", body: { model: name }, done: `${name} is not split any more.` })) : null);
  return el("section", { "aria-label": `Split of ${name}` }, el("h4", {}, "Split"), el("p", { class: "hint" }, now),
    labels.length ? form : el("p", { class: "hint" }, "A split needs a label beside stable: make a version canary first."));
}

function shadow(name, routing, info) {
  const others = [...new Set(info.models.map((each) => `${each.name} ${each.version}`))].filter((each) => each !== `${name} ${info.models.find((one) => one.name === name && one.is_default_version)?.version}`);
  const now = routing?.shadow_model ? `${routing.shadow_model} ${routing.shadow_revision || "(its default version)"} answers ${percent(routing.shadow_share)} of the requests again, unseen.` : "None: nobody answers again.";
  const other = el("select", { id: `shadow-${name}-other` }, others.map((each) => el("option", {}, each)));
  const share = el("input", { id: `shadow-${name}-share`, type: "number", min: "1", max: "100", value: "10", required: true });
  const form = el("form", { onsubmit: (event) => {
    event.preventDefault();
    const [model, version] = other.value.split(" ");
    change({ title: `Let ${model} ${version} answer ${share.value} % of ${name}’s requests again`, text: now,
      effect: "Callers see nothing of it; it costs its time beside their answers, and is left out under load. Overview shows how far both agree.",
      word: version, path: "setShadow", body: { model: name, shadow_model: model, shadow_revision: version, share: Number(share.value) / 100 }, done: `${model} ${version} is the shadow of ${name}.` });
  } }, el("div", { class: "field" }, el("label", { for: other.id }, "Model"), other), el("div", { class: "field" }, el("label", { for: share.id }, "Share, %"), share),
  el("button", { class: "small", disabled: !mayChange }, "Shadow"),
  routing?.shadow_model ? button("End the shadow", `of ${name}`, () => change({ title: `End the shadow of ${name}`, text: now, effect: "Nobody answers again.", word: name, path: "setShadow", body: { model: name }, done: `${name} has no shadow any more.` })) : null);
  return el("section", { "aria-label": `Shadow of ${name}` }, el("h4", {}, "Shadow"), el("p", { class: "hint" }, now),
    others.length ? form : el("p", { class: "hint" }, "A shadow needs another loaded version or model."));
}

/** Ask, by name, and do it: {title, text, effect, word, path, body, done}. */
function change(wanted) {
  const dialog = byId("confirm"), word = byId("confirm-word"), yes = byId("confirm-yes"), wrong = byId("confirm-error");
  const opener = document.activeElement;
  byId("confirm-title").textContent = wanted.title;
  byId("confirm-text").textContent = wanted.text;
  byId("confirm-effect").textContent = wanted.effect;
  byId("confirm-label").replaceChildren("Type ", el("code", {}, wanted.word), " to confirm");
  word.value = "";
  wrong.textContent = "";
  yes.disabled = true;
  yes.textContent = "Change";
  word.oninput = () => { yes.disabled = word.value.trim() !== wanted.word; };
  byId("confirm-no").onclick = () => dialog.close();
  byId("confirm-form").onsubmit = async (event) => {
    event.preventDefault();
    if (word.value.trim() !== wanted.word || yes.textContent !== "Change") return;
    yes.disabled = true;
    yes.textContent = "Changing …";
    try {
      await ask(wanted.path, wanted.body);
      dialog.close();
      await refresh();
      say(wanted.done);
    } catch (error) {
      wrong.textContent = `Nothing was changed. ${error.message}`;
      yes.textContent = "Change";
      yes.disabled = false;
      refresh();
    }
  };
  dialog.onclose = () => (opener?.isConnected ? opener : byId("content")).focus();
  dialog.showModal();
  word.focus();
}
