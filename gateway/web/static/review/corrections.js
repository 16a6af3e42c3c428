// The form of corrections: what a person states about the page, as one JSON value in a hidden field.

import { BoxTool, cornersOf, LinesTool, PenTool, PointsTool, Space, stroke } from "./correction_tools.js";

const byId = (id) => document.getElementById(id);
const WORDS = {
  row_baselines_px: "Rows placed by hand",
  column_edges_px: "Columns placed by hand",
  corners_px: "Corners of the sheet",
  crop_px: "Cut out of the page",
};

class Corrections {
  constructor({ model, page, geometry }) {
    Object.assign(this, { model, page });
    this.zoom = geometry.zoom;
    this.hidden = byId("corrections");
    this.value = JSON.parse(this.hidden.value || "{}");
    this.space = new Space(model);
    page.statements = (ctx, view) => this.#paint(ctx, view);
    this.#wireFields();
    this.#wireLayouts();
    this.#wireTools();
    byId("c-reset").addEventListener("click", () => {
      this.value = {};
      this.#fill();
      this.save();
    });
    this.#fill();
    this.save();
  }

  save() {
    for (const [name, value] of Object.entries(this.value)) {
      if (value === null || value === "" || value === false && name === "mirrored" || Array.isArray(value) && !value.length) delete this.value[name];
    }
    this.hidden.value = JSON.stringify(this.value);
    this.#list();
    this.page.viewport.repaint();
  }

  // -- pixels of the picture and of the page

  toPage([x, y]) {
    return [Math.round((x / this.zoom - 0.5) * 10) / 10, Math.round((y / this.zoom - 0.5) * 10) / 10];
  }

  toPicture([x, y]) {
    return [(x + 0.5) * this.zoom, (y + 0.5) * this.zoom];
  }

  // -- fields

  #wireFields() {
    for (const field of document.querySelectorAll("#correct-form [data-field]")) {
      field.addEventListener("input", () => {
        this.value[field.dataset.field] = this.#read(field);
        if (this.value[field.dataset.field] === undefined) delete this.value[field.dataset.field];
        this.save();
      });
    }
    for (const box of document.querySelectorAll("[data-left-out]")) {
      box.addEventListener("input", () => {
        const boxes = [...document.querySelectorAll("[data-left-out]:checked")];
        this.value.left_out = boxes.map((each) => each.dataset.leftOut);
        this.save();
      });
    }
  }

  #read(field) {
    if (field.type === "checkbox") return field.checked;
    const text = field.value.trim();
    if (text === "") return undefined;
    if (field.dataset.field === "together") return text === "true";
    const number = Number(text.replace(",", "."));
    return Number.isFinite(number) ? number : text; // the server says what is wrong with it
  }

  #fill() {
    for (const field of document.querySelectorAll("#correct-form [data-field]")) {
      const value = this.value[field.dataset.field];
      if (field.type === "checkbox") field.checked = value === true;
      else field.value = value === undefined ? "" : String(value);
    }
    for (const box of document.querySelectorAll("[data-left-out]")) {
      box.checked = this.value.left_out?.includes(box.dataset.leftOut) ?? false;
    }
    for (const radio of document.getElementsByName("c_layout")) radio.checked = radio.value === (this.value.layout ?? "");
    this.#names();
  }

  // -- layout and names

  #wireLayouts() {
    for (const radio of document.getElementsByName("c_layout")) {
      radio.addEventListener("change", () => {
        this.value.layout = radio.value;
        for (const name of ["leads", "rhythm", "row_baselines_px", "column_edges_px"]) delete this.value[name];
        this.save();
        this.#names();
        this.#use("");
      });
    }
    byId("name-grid").addEventListener("input", () => this.#readNames());
    byId("name-grid").addEventListener("dragstart", (event) => (this.dragged = event.target.closest("label")));
    byId("name-grid").addEventListener("dragover", (event) => event.preventDefault());
    byId("name-grid").addEventListener("drop", (event) => {
      event.preventDefault();
      const [from, to] = [this.dragged, event.target.closest("label")].map((label) => label?.querySelector("input"));
      if (!from || !to) return;
      [from.value, to.value] = [to.value, from.value];
      this.#readNames();
    });
  }

  // The layout that counts: the chosen one, else the one that was found, with the names that were found.
  layout() {
    const radios = [...document.getElementsByName("c_layout")];
    const name = this.value.layout || this.model.geometry.layout;
    const radio = radios.find((each) => each.value === name && each.dataset.rows);
    if (!radio) return null;
    const [rows, rhythm] = [JSON.parse(radio.dataset.rows), JSON.parse(radio.dataset.rhythm)];
    if (this.value.layout) return { rows, rhythm };
    const found = (row) => this.model.stretches.filter((each) => each.row === row).sort((a, b) => a.x0_mm - b.x0_mm).map((each) => each.lead);
    return { rows, rhythm: rhythm.map((lead, k) => found(rows.length + k)[0] ?? lead) };
  }

  #names() {
    const layout = this.layout();
    byId("c-chosen").textContent = this.value.layout ? `Stated: ${this.value.layout}.` : "";
    const grid = byId("name-grid");
    grid.replaceChildren();
    if (!layout) return;
    const rows = this.value.leads ?? layout.rows;
    const rhythm = this.value.rhythm ?? layout.rhythm;
    [...rows, ...rhythm.map((lead) => [lead])].forEach((row, i) => {
      const line = document.createElement("div");
      line.className = i < rows.length ? "names" : "names long";
      row.forEach((lead, k) => {
        const label = document.createElement("label");
        label.draggable = true;
        const input = Object.assign(document.createElement("input"), { value: lead, size: 4, autocomplete: "off" });
        input.setAttribute("list", "lead-names");
        input.setAttribute("aria-label", i < rows.length ? `Row ${i + 1}, column ${k + 1}` : `Rhythm strip ${i - rows.length + 1}`);
        label.append(input);
        line.append(label);
      });
      grid.append(line);
    });
  }

  #readNames() {
    const lines = [...byId("name-grid").children].map((line) => [...line.querySelectorAll("input")].map((input) => lead(input.value)));
    const { rows, rhythm } = this.layout();
    const [leads, strips] = [lines.slice(0, rows.length), lines.slice(rows.length).map(([each]) => each)];
    this.value.leads = JSON.stringify(leads) === JSON.stringify(rows) ? [] : leads;
    this.value.rhythm = JSON.stringify(strips) === JSON.stringify(rhythm) ? [] : strips;
    this.save();
  }

  // -- tools

  #wireTools() {
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        this.#use(on ? button.dataset.tool : "");
        if (on) byId("page-view").focus({ preventScroll: false });
      });
    }
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.page.tool && this.#use(""));
  }

  #use(name) {
    for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
    this.page.tool = name ? this.#tool(name) : null;
    byId("tool-hint").textContent = this.page.tool?.hint ?? "Choose a tool, then work on the page.";
    this.page.viewport.repaint();
  }

  #tool(name) {
    const { space, model } = this;
    const layout = this.layout() ?? { rows: [[1]], rhythm: [] };
    const set = (field) => (points) => {
      this.value[field] = points.map((point) => this.toPage(point));
      this.save();
    };
    const stated = (field) => this.value[field]?.map((point) => this.toPicture(point));
    const add = (field, item) => {
      this.value[field] = [...(this.value[field] ?? []), item];
      this.save();
    };
    const changed = () => this.page.viewport.repaint();
    const { width, height } = model.geometry;
    switch (name) {
      case "rows":
        return new LinesTool({ space, axis: 1, count: layout.rows.length + layout.rhythm.length, stated: stated("row_baselines_px"), changed: set("row_baselines_px") });
      case "columns":
        return new LinesTool({ space, axis: 0, count: layout.rows[0].length + 1, stated: stated("column_edges_px"), changed: set("column_edges_px") });
      case "corners": {
        const points = stated("corners_px") ?? cornersOf([[0.02 * width, 0.02 * height], [0.98 * width, 0.98 * height]]);
        const hint = "Drag the four corners onto those of the sheet of paper. Keys: , and . choose, arrows move.";
        return new PointsTool({ points, hint, shape: (four) => four, changed: set("corners_px") });
      }
      case "crop": {
        const crop = this.value.crop_px;
        const points = crop ? [[crop[0], crop[1]], [crop[2], crop[3]]].map((point) => this.toPicture(point)) : [[0.02 * width, 0.02 * height], [0.98 * width, 0.98 * height]];
        const hint = "Drag two corners around the ECG: what is outside is not read. Keys: , and . choose, arrows move.";
        const keep = (two) => {
          const [a, , b] = cornersOf(two).map((point) => this.toPage(point));
          this.value.crop_px = [...a, ...b];
          this.save();
        };
        return new PointsTool({ points, hint, shape: cornersOf, changed: keep });
      }
      case "not_ecg":
        return new BoxTool({ hint: "Drag a box over a part of the page that is not an ECG.", done: (corners) => add("not_ecg_px", corners.map((point) => this.toPage(point))), changed });
      case "line":
        return new PenTool({
          model, space, changed, least: 2,
          hint: "Draw over the ink with the pointer, or set points and press Enter. Keys: arrows move, Space sets a point, Enter ends.",
          done: (points, row) => add("lines", { row, points_px: points.map((point) => this.toPage(point)) }),
        });
      default:
        return new PenTool({
          model, space, changed, least: 2,
          hint: "Drag along the part of a row that nobody can read. Keys: arrows move, Space sets a point, Enter ends.",
          done: (points, row) => add("unreadable", { row, from_px: this.toPage(points[0]), to_px: this.toPage(points.at(-1)) }),
        });
    }
  }

  // -- what is stated

  #list() {
    const { value } = this;
    const items = Object.keys(WORDS).filter((name) => value[name]).map((name) => [WORDS[name], () => delete value[name]]);
    const each = (name, words) => (value[name] ?? []).forEach((item, k) => items.push([words(item), () => value[name].splice(k, 1)]));
    each("not_ecg_px", () => "A part that is not an ECG");
    each("lines", ({ row, points_px }) => `A line in row ${row} (${points_px.length} points)`);
    each("unreadable", ({ row }) => `An unreadable part of row ${row}`);
    byId("stated").replaceChildren(
      ...items.map(([words, remove]) => {
        const [item, button] = [document.createElement("li"), document.createElement("button")];
        Object.assign(button, { type: "button", className: "light", textContent: "Take back" });
        button.setAttribute("aria-label", `Take back: ${words}`);
        button.addEventListener("click", () => {
          remove();
          this.save();
          this.#use("");
        });
        item.append(words, " ", button);
        return item;
      }),
    );
  }

  #paint(ctx, view) {
    const px = 1 / view.scale;
    const { value } = this;
    const placed = (points) => points.map((point) => this.toPicture(point));
    for (const polygon of value.not_ecg_px ?? []) {
      const points = placed(polygon);
      ctx.fillStyle = "rgba(60,60,60,.35)";
      ctx.beginPath();
      points.forEach((point, k) => (k ? ctx.lineTo(...point) : ctx.moveTo(...point)));
      ctx.fill();
      stroke(ctx, points, 1.5 * px, "#333", true);
    }
    for (const { points_px } of value.lines ?? []) stroke(ctx, placed(points_px), 2.6 * px, "#0057e0");
    for (const { from_px, to_px } of value.unreadable ?? []) stroke(ctx, placed([from_px, to_px]), 12 * px, "rgba(120,120,120,.55)");
    if (value.corners_px && !this.page.tool) stroke(ctx, placed(value.corners_px), 2 * px, "#0057e0", true);
    if (value.crop_px && !this.page.tool) {
      const [x0, y0, x1, y1] = value.crop_px;
      stroke(ctx, cornersOf(placed([[x0, y0], [x1, y1]])), 2 * px, "#0057e0", true);
    }
  }
}

// A lead's name as it is written, whatever its case.
function lead(text) {
  return [...byId("lead-names").children].map((option) => option.textContent).find((each) => each.toLowerCase() === text.trim().toLowerCase()) ?? text.trim();
}

document.addEventListener("bench:ready", ({ detail }) => byId("correct-form") && new Corrections(detail));
