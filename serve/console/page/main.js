// The page: the door, which screen is shown, and the look every few seconds at how the server is.

import { ask, setKey } from "./api.js";
import { byId, say } from "./dom.js";
import { showFrontier } from "./frontier.js";
import { showJobs } from "./jobs.js";
import { showModels } from "./models.js";
import { showOverview } from "./overview.js";
import { prepareTry, showTry } from "./try.js";

const LOOK_EVERY = 5000;
const SCREENS = { overview: showOverview, try: showTry, models: showModels, frontier: showFrontier, jobs: showJobs };
const LIVE = new Set(["overview", "models", "jobs"]);
let timer = 0, isOpen = false, looks = 0;

const wanted = () => (location.hash.slice(1) in SCREENS ? location.hash.slice(1) : "overview");

function status(kind, text) {
  byId("status").firstElementChild.className = `dot ${kind}`;
  byId("status-text").textContent = text;
}

function knock(message) {
  isOpen = false;
  status("", "Locked");
  byId("door").hidden = false;
  byId("screens").hidden = true;
  for (const name of Object.keys(SCREENS)) byId(name).hidden = true;
  byId("door-error").textContent = message;
  byId("key").focus();
}

function reveal() {
  const name = wanted();
  byId("door").hidden = true;
  byId("screens").hidden = false;
  for (const each of Object.keys(SCREENS)) byId(each).hidden = each !== name;
  for (const link of byId("screens").children)
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  document.title = `${byId(`${name}-title`).textContent} · Lowpass console`;
}

function tell(overview, info) {
  const worst = overview.conditions.some((each) => each.severity === "bad") ? "bad" : overview.conditions.length ? "watch" : "good";
  const model = info.models.find((each) => each.is_default && each.is_default_version) ?? info.models[0];
  const number = overview.conditions.length;
  const serves = !overview.serving ? "Not serving" : model ? `Serving ${model.name} ${model.version}` : "Serving";
  status(worst, number ? `${serves} · ${number} to look at` : `${serves} · all well`);
  byId("about").textContent = `Lowpass ${info.server_version}. Numbers are this server’s own, since it started; nothing here leaves it.`;
}

/** Look at the server; `first` where the reader has just come to this screen. */
async function look(first) {
  clearTimeout(timer);
  const turn = ++looks;
  try {
    const [overview, info] = await Promise.all([ask("overview"), ask("getInfo", {})]);
    if (turn !== looks) return;
    const isNew = !isOpen;
    isOpen = true;
    tell(overview, info);
    reveal();
    if (isNew) say("Open");
    const name = wanted();
    if (first || isNew || LIVE.has(name)) await SCREENS[name](overview, info, () => look(true));
  } catch (error) {
    if (turn !== looks) return;
    if (error.status === 401) {
      knock(byId("key").value ? "This key is not one of the server’s." : "");
      return;
    }
    status("bad", error.message);
    if (!("status" in error)) console.error(error);  // a defect of this page; the next look may do
  }
  timer = setTimeout(() => look(false), LOOK_EVERY);
}

byId("door-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value);
  look(true).then(() => {
    if (!isOpen) return;
    byId("key").value = "";
    byId("content").focus();
  });
});
addEventListener("hashchange", () => {
  if (!isOpen) return;
  reveal();
  byId("content").focus();
  scrollTo(0, 0);
  look(true);
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();  // the address names a screen
  byId("content").focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (isOpen) look(false);
});
prepareTry();
look(true);
