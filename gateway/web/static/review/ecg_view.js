// The digitized ECG on paper, to scale: what is sent, as a cart would print it.

import { drawCalipers, drawCursor, writeName } from "./draw.js";
import { colourOf } from "./model.js";
import { Viewport } from "./viewport.js";

const THREE_BY_FOUR = [["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"], ["III", "aVF", "V3", "V6"]];
const FORMATS = {
  "3x4+1R": { rows: THREE_BY_FOUR, rhythm: ["II"], seconds: 2.5 },
  "6x2": { rows: ["I", "II", "III", "aVR", "aVL", "aVF"].map((lead, i) => [lead, `V${i + 1}`]), rhythm: [], seconds: 5 },
  "12x1": { rows: ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"].map((lead) => [lead]), rhythm: [], seconds: 10 },
};
const LEFT_MM = 12;
const PITCH_MM = { 5: 18, 10: 26, 20: 42 }; // from row to row, by gain
const NARROW_MM = { 5: 12, 10: 17, 20: 28 }; // where there are many rows

export class EcgView {
  constructor(canvas, model, pointing) {
    this.model = model;
    this.canvas = canvas;
    const printed = Object.keys(FORMATS).find((format) => model.geometry.layout?.startsWith(format.slice(0, 3)));
    this.settings = { format: printed ?? "3x4+1R", speed: 25, gain: 10 };
    const found = (point) => this.found(point);
    const listener = {
      hover: (point) => pointing.hover(found(point), point),
      leave: () => pointing.leave(),
      place: () => this.place(model.cursor),
      down: (point, event) => pointing.down(found(point), point, event),
      drag: (point, event) => pointing.drag(found(point), point, event),
      up: (point, event) => pointing.up(found(point), point, event),
    };
    this.viewport = new Viewport(canvas, { x0: 0, y0: 0, x1: 280, y1: 120 }, (ctx, view) => this.#paint(ctx, view), listener);
    this.choose({});
    model.addEventListener("change", () => this.viewport.repaint());
  }

  choose(changes) {
    Object.assign(this.settings, changes);
    const { format, speed, gain } = this.settings;
    const { rows, rhythm, seconds } = FORMATS[format];
    const pitch = (rows.length > 4 ? NARROW_MM : PITCH_MM)[gain];
    const shown = new Set([...rows.flat(), ...rhythm]);
    const beside = this.model.record.leads.map(({ lead }) => lead).filter((lead) => !shown.has(lead)); // V7, ...
    const strips = [...rhythm, ...beside].map((lead) => [lead]);
    this.cells = [];
    [...rows, ...strips].forEach((row, i) =>
      row.forEach((lead, k) => {
        const long = seconds * (rows[0].length / row.length);
        const from = this.#from(lead, k * seconds, long, row.length === 1);
        this.cells.push({ lead, from, long, x: LEFT_MM + k * seconds * speed, y: (i + 0.62) * pitch + 4, row: i });
      }),
    );
    this.height = (rows.length + strips.length) * pitch + 8;
    this.width = LEFT_MM + rows[0].length * seconds * speed + 4;
    this.canvas.dataset.paper = `${format}, ${speed} mm/s, ${gain} mm/mV`;
    this.viewport.fit({ x0: 0, y0: 0, x1: this.width, y1: this.height });
  }

  // When a cell starts: with its column, unless the lead has its signal elsewhere (columns recorded together).
  #from(lead, column, long, whole) {
    const found = this.model.lead(lead);
    if (!found || whole) return 0;
    const fs = this.model.record.sampling_frequency_hz;
    const [first, last] = [found.first / fs, (found.first + found.uv.length) / fs];
    const overlap = Math.min(last, column + long) - Math.max(first, column);
    return overlap > 0.5 * Math.min(long, last - first) ? column : first;
  }

  found([x, y]) {
    const { speed, gain } = this.settings;
    let best = null;
    for (const cell of this.cells) {
      const t = cell.from + (x - cell.x) / speed;
      if (t < cell.from || t > cell.from + cell.long) continue;
      const far = Math.abs(y - this.#y(cell, this.model.valueAt(cell.lead, t)));
      if (!best || far < best.far) best = { lead: cell.lead, t, mv: (cell.y - y) / gain, far };
    }
    return best;
  }

  place({ lead, t }, mv = this.model.valueAt(lead, t)) {
    const cells = this.cells.filter((cell) => cell.lead === lead && t >= cell.from && t <= cell.from + cell.long);
    const cell = cells.sort((a, b) => a.long - b.long)[0];
    return cell && [cell.x + (t - cell.from) * this.settings.speed, this.#y(cell, mv)];
  }

  #y(cell, mv) {
    return cell.y - (mv ?? 0) * this.settings.gain;
  }

  #paint(ctx, view) {
    const { model } = this;
    const px = 1 / view.scale;
    paintPaper(ctx, 0, 0, this.width, this.height, px);
    ctx.lineJoin = "round";
    for (const cell of this.cells) {
      const first = !this.cells.some((other) => other.row === cell.row && other.x < cell.x);
      if (first) this.#paintPulse(ctx, cell, px);
      ctx.strokeStyle = model.cursor?.lead === cell.lead ? colourOf(cell.lead) : "#16181d";
      ctx.lineWidth = Math.max(0.28, 1.1 * px);
      ctx.stroke(this.#path(cell));
      const top = this.#top(cell);
      writeName(ctx, view, cell.lead, [cell.x + 1, top], colourOf(cell.lead));
    }
    if (model.cursor) {
      const at = this.place(model.cursor);
      if (at) drawCursor(ctx, view, at, [0, 10]);
    }
    if (model.calipers) {
      const { lead, a, b } = model.calipers;
      const [from, to] = [a, b].map(({ t, mv }) => this.place({ lead, t }, mv));
      if (from && to) drawCalipers(ctx, view, from, to, [0, 1], model.measured());
    }
  }

  #samples(cell, seconds = cell.long) {
    const lead = this.model.lead(cell.lead);
    const fs = this.model.record?.sampling_frequency_hz ?? 500;
    const from = Math.round(cell.from * fs);
    const count = lead ? Math.round(seconds * fs) : 0;
    return Array.from({ length: count }, (_, k) => [k / fs, lead.uv[from + k - lead.first] ?? null]);
  }

  #path(cell) {
    const { speed } = this.settings;
    const path = new Path2D();
    let down = false;
    for (const [t, uv] of this.#samples(cell)) {
      if (uv === null) down = false;
      else if (down) path.lineTo(cell.x + t * speed, this.#y(cell, uv / 1000));
      else {
        path.moveTo(cell.x + t * speed, this.#y(cell, uv / 1000));
        down = true;
      }
    }
    return path;
  }

  #top(cell) {
    const start = this.#samples(cell, 7 / this.settings.speed).filter(([, uv]) => uv !== null);
    return Math.min(cell.y - 3, ...start.map(([, uv]) => this.#y(cell, uv / 1000))) - 3;
  }

  // The calibration pulse: 1 mV for 5 mm.
  #paintPulse(ctx, cell, px) {
    const [x, y, up] = [cell.x - 10, cell.y, this.settings.gain];
    ctx.strokeStyle = "#16181d";
    ctx.lineWidth = Math.max(0.25, px);
    ctx.beginPath();
    for (const [dx, dy] of [[0, 0], [2, 0], [2, up], [7, up], [7, 0], [9, 0]]) ctx.lineTo(x + dx, y - dy);
    ctx.stroke();
  }
}

// Millimetre paper; the fine lines only where they can be told apart.
export function paintPaper(ctx, x0, y0, x1, y1, px) {
  ctx.fillStyle = "#fff8f7";
  ctx.fillRect(x0, y0, x1 - x0, y1 - y0);
  for (const [step, colour] of [[1, "#f9dcda"], [5, "#efb0ad"]]) {
    if (step === 1 && px > 0.34) continue;
    ctx.strokeStyle = colour;
    ctx.lineWidth = Math.min(px, step === 1 ? 0.1 : 0.18);
    ctx.beginPath();
    for (let x = Math.ceil(x0 / step) * step; x <= x1; x += step) {
      ctx.moveTo(x, y0);
      ctx.lineTo(x, y1);
    }
    for (let y = Math.ceil(y0 / step) * step; y <= y1; y += step) {
      ctx.moveTo(x0, y);
      ctx.lineTo(x1, y);
    }
    ctx.stroke();
  }
}
