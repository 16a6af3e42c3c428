// The workbench: the page, the digitized ECG and the strip of one lead point at the same instant; keys and tools.

import { EcgView } from "./ecg_view.js";
import { Model, wordsOf } from "./model.js";
import { PageView } from "./page_view.js";
import { StripView } from "./strip_view.js";
import "./corrections.js";
import "./countdown.js";

const bench = document.getElementById("bench");
const { job, root, csrf, files } = bench.dataset;
const readable = bench.dataset.readable === "true";
const byId = (id) => document.getElementById(id);

// What a person points at, in whichever picture: a cursor while nothing is measured, else the calipers.
class Pointing {
  constructor(model) {
    this.model = model;
    this.measuring = false;
    this.end = "b";
  }

  hover(found) {
    if (found) this.model.set({ cursor: { lead: found.lead, row: found.row, t: found.t } });
  }

  leave() {}

  down(found, point, event) {
    if (!found) return false;
    this.hover(found);
    if (!this.measuring) return false;
    const { calipers } = this.model;
    const near = calipers && calipers.lead === found.lead && ["a", "b"].find((end) => Math.abs(calipers[end].t - found.t) < 0.03);
    this.end = near || "b";
    const at = { t: found.t, mv: found.mv };
    if (!near) this.model.set({ calipers: { lead: found.lead, row: found.row, a: at, b: at } });
    return true;
  }

  drag(found) {
    const { calipers } = this.model;
    if (!found || !calipers || found.lead !== calipers.lead) return;
    this.model.set({ calipers: { ...calipers, [this.end]: { t: found.t, mv: found.mv } } });
  }

  up(found) {
    this.drag(found);
  }

  // Calipers on and off; they begin at the cursor, 0.2 s wide.
  toggle(on = !this.measuring) {
    this.measuring = on;
    const { cursor } = this.model;
    const at = (t) => ({ t, mv: this.model.valueAt(cursor.lead, t) ?? 0 });
    const from = cursor && Math.min(cursor.t, this.model.endOf(this.model.stretchAt(cursor.lead, cursor.t, cursor.row)) - 0.21);
    const calipers = on && cursor ? { lead: cursor.lead, row: cursor.row, a: at(from), b: at(from + 0.2) } : null;
    this.end = "b";
    this.model.set({ calipers });
    byId("calipers").setAttribute("aria-pressed", on);
  }

  // Along a lead by a number of seconds: the calipers' end while measuring, else the cursor.
  step(seconds) {
    const { model } = this;
    const moved = (at, lead) => {
      const t = at.t + seconds;
      return { ...at, t, mv: model.valueAt(lead, t) ?? at.mv };
    };
    const { calipers } = model;
    if (calipers) {
      const end = moved(calipers[this.end], calipers.lead);
      if (model.stretchAt(calipers.lead, end.t, calipers.row)) model.set({ calipers: { ...calipers, [this.end]: end } });
    } else if (model.cursor && model.stretchAt(model.cursor.lead, model.cursor.t + seconds)) {
      model.set({ cursor: { ...model.cursor, t: model.cursor.t + seconds } });
    }
  }

  // To the same place of the lead that is printed before or after.
  nextLead(step) {
    const { stretches, cursor } = this.model;
    const at = stretches.indexOf(this.model.stretchAt(cursor.lead, cursor.t, cursor.row));
    const stretch = stretches[(at + step + stretches.length) % stretches.length];
    const t = stretch.start_s + Math.min(cursor.t - stretches[Math.max(at, 0)].start_s, this.model.endOf(stretch) - stretch.start_s - 0.01);
    this.model.set({ cursor: { lead: stretch.lead, row: stretch.row, t }, calipers: null });
    this.measuring = false;
    byId("calipers").setAttribute("aria-pressed", false);
  }
}

async function load(name) {
  const answer = await fetch(`${files}/${name}`);
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.json();
}

function listDoubts(model, goTo) {
  const list = byId("doubts");
  model.doubts.forEach((doubt, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = ["gap", "unsure"].includes(doubt.kind) ? "doubt soft" : "doubt";
    const lead = document.createElement("strong");
    lead.textContent = doubt.lead;
    button.append(lead, ` ${doubt.start_s.toFixed(2)} s `, document.createElement("br"), wordsOf(doubt));
    button.addEventListener("click", () => goTo(index));
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  });
  const many = model.doubts.length;
  byId("doubt-count").textContent = many ? `${many} place${many > 1 ? "s" : ""} to look at. n goes to the next.` : "No place stands out. Compare lead by lead.";
}

function readout(model) {
  const { cursor } = model;
  const words = [];
  if (cursor) {
    const mv = model.valueAt(cursor.lead, cursor.t);
    words.push(`${cursor.lead} ${cursor.t.toFixed(3)} s${mv === null ? "" : ` ${mv.toFixed(2).replace("-0.00", "0.00")} mV`}`);
  }
  if (model.calipers) words.push(model.measured());
  return words.join(" | ");
}

async function open() {
  const canvas = byId("page-view");
  if (!canvas) {
    bench.dataset.ready = "true";
    return;
  }
  const picture = new Image();
  picture.src = `${files}/page.png`;
  const [geometry, record] = await Promise.all([load("geometry.json"), readable ? load("record.json") : null]);
  const model = new Model(geometry, record);
  const pointing = new Pointing(model);
  const page = new PageView(canvas, model, picture, pointing);
  wireTools(model, page, pointing);
  if (readable) {
    const ecg = new EcgView(byId("ecg-view"), model, pointing);
    byId("format").value = ecg.settings.format;
    new StripView(byId("strip-view"), model, picture);
    for (const name of ["format", "speed", "gain"]) {
      byId(name).addEventListener("change", ({ target }) => ecg.choose({ [name]: name === "format" ? target.value : Number(target.value) }));
    }
    const first = model.stretches[0];
    if (first) model.set({ cursor: { lead: first.lead, row: first.row, t: first.start_s + 0.5 } });
    const goTo = (index) => {
      const doubt = model.doubts[index];
      if (!doubt) return;
      model.set({ doubt: index, cursor: { lead: doubt.lead, t: (doubt.start_s + doubt.end_s) / 2 }, calipers: null });
      page.showDoubt(doubt);
      [...byId("doubts").querySelectorAll("button")].forEach((button, k) => button.toggleAttribute("aria-current", k === index));
      byId("doubts").children[index].scrollIntoView({ block: "nearest" });
    };
    listDoubts(model, goTo);
    wireKeys(model, pointing, page, goTo);
    const say = () => (byId("readout").textContent = readout(model));
    model.addEventListener("change", say);
    say();
  }
  for (const line of document.querySelectorAll("[data-print]")) {
    const box = geometry.text?.[Number(line.dataset.print)]?.box;
    const point = (on) => box && model.set({ print: on ? box : null });
    line.addEventListener("pointerenter", () => point(true));
    line.addEventListener("pointerleave", () => point(false));
  }
  bench.dataset.ready = "true";
  document.dispatchEvent(new CustomEvent("bench:ready", { detail: { model, page, geometry } }));
}

function wireTools(model, page, pointing) {
  for (const button of document.querySelectorAll("[data-toggle]")) {
    button.addEventListener("click", () => {
      const name = button.dataset.toggle;
      model.set({ show: { ...model.show, [name]: !model.show[name] } });
      button.setAttribute("aria-pressed", model.show[name]);
    });
  }
  byId("opacity").addEventListener("input", ({ target }) => model.set({ opacity: target.value / 100 }));
  byId("calipers").addEventListener("click", () => pointing.toggle());
  for (const button of document.querySelectorAll("[data-zoom]")) {
    const { zoom } = button.dataset;
    button.addEventListener("click", () => (zoom === "fit" ? page.viewport.fit(page.ink) : page.viewport.zoom(zoom === "in" ? 1.5 : 1 / 1.5)));
  }
}

function wireKeys(model, pointing, page, goTo) {
  const fainter = (step) => {
    const slider = byId("opacity");
    slider.value = Number(slider.value) + step;
    slider.dispatchEvent(new Event("input"));
  };
  const pick = (format) => {
    byId("format").value = format;
    byId("format").dispatchEvent(new Event("change"));
  };
  const press = (selector) => document.querySelector(selector)?.click();
  const many = model.doubts.length;
  const actions = {
    n: () => goTo((model.doubt + 1) % many),
    N: () => goTo((Math.max(model.doubt, 0) - 1 + many) % many),
    o: () => press("[data-toggle=overlay]"),
    g: () => press("[data-toggle=grid]"),
    c: () => pointing.toggle(),
    x: () => (pointing.end = pointing.end === "a" ? "b" : "a"),
    "[": () => fainter(-10),
    "]": () => fainter(10),
    1: () => pick("3x4+1R"),
    2: () => pick("6x2"),
    3: () => pick("12x1"),
  };
  const shifted = {
    ArrowLeft: () => pointing.step(-0.01),
    ArrowRight: () => pointing.step(0.01),
    ArrowUp: () => pointing.nextLead(-1),
    ArrowDown: () => pointing.nextLead(1),
  };
  onKey((key, event) => (event.shiftKey && shifted[key]) || actions[key]);
}

// Keys work where nothing is typed.
function onKey(find) {
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input:not([type=range]):not([type=radio]):not([type=checkbox]), textarea, select, dialog")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = find(event.key, event);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

// The job stays ours while its page is open, and is free again when it is left.
function keepClaim() {
  const claim = async () => {
    const answer = await fetch(`${root}/review/${job}/claim`, { headers: { "HX-Request": "true" } });
    if (answer.ok) {
      const { reviewer, mine } = await answer.json();
      if (!mine && !byId("holder")) {
        const badge = Object.assign(document.createElement("span"), { className: "badge busy", id: "holder", textContent: `${reviewer} has it open` });
        document.querySelector(".bar h1").after(badge);
      }
    }
  };
  setInterval(claim, 30000);
  window.addEventListener("pagehide", () => navigator.sendBeacon(`${root}/review/${job}/leave`, new URLSearchParams({ csrf })));
}

// While the page is being read again: look every second, and show the result.
function waitForReading() {
  if (bench.dataset.working !== "true") return;
  const look = setInterval(async () => {
    const answer = await fetch(`${root}/review/${job}/state`, { headers: { "HX-Request": "true" } });
    if (!answer.ok || (await answer.json()).working) return;
    clearInterval(look);
    location.replace(`${root}/review/${job}?page=${bench.dataset.page}`);
  }, 1000);
}

// The side shows what is decided, or the form of corrections.
function wireTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const choose = (tab) => {
    for (const each of tabs) {
      each.setAttribute("aria-selected", each === tab);
      each.tabIndex = each === tab ? 0 : -1;
      byId(each.getAttribute("aria-controls")).hidden = each !== tab;
    }
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = tabs[1 - tabs.indexOf(tab)];
      choose(other);
      other.focus();
    });
  }
}

wireTabs();
const help = byId("help");
byId("help-open").addEventListener("click", () => help.showModal());
onKey((key) => ({
  j: () => byId("next")?.click(),
  k: () => byId("previous")?.click(),
  u: () => (location.href = `${root}/review`),
  t: () => byId("agree-traces")?.click(),
  p: () => byId("agree-patient")?.click(),
  a: () => byId("accept")?.click(),
  e: () => byId("tab-correct")?.click(),
  "?": () => help.showModal(),
})[key]);
keepClaim();
waitForReading();
open().catch((error) => {
  byId("page-view").insertAdjacentHTML("afterend", "<p class='notice bad'>The pictures cannot be loaded. Load the page again.</p>");
  throw error;
});
