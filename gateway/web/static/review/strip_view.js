// One lead, magnified: its ink on the page above, what was read from it below, at one scale and one time.

import { CURSOR, writeName } from "./draw.js";
import { paintPaper } from "./ecg_view.js";
import { colourOf } from "./model.js";
import { pathOf } from "./page_view.js";

const MARGIN_MM = 2;
const LONGEST_S = 3;

export class StripView {
  constructor(canvas, model, picture) {
    Object.assign(this, { canvas, model, picture, drawn: false });
    canvas.addEventListener("pointermove", (event) => this.#hover(event));
    new ResizeObserver(() => this.repaint()).observe(canvas);
    picture.addEventListener("load", () => this.repaint());
    model.addEventListener("change", () => this.repaint());
  }

  repaint() {
    if (this.drawn) return;
    this.drawn = true;
    requestAnimationFrame(() => {
      this.drawn = false;
      const ratio = window.devicePixelRatio || 1;
      const { clientWidth: width, clientHeight: height } = this.canvas;
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      const ctx = this.canvas.getContext("2d");
      ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.#paint(ctx, width, height, ratio);
    });
  }

  // The window of paper that is shown, and its scale.
  #window(width, height) {
    const { model } = this;
    const at = model.cursor ?? (model.stretches[0] && { lead: model.stretches[0].lead, t: model.stretches[0].start_s });
    const stretch = at && model.stretchAt(at.lead, at.t, at.row);
    if (!stretch) return null;
    const long = Math.min(model.endOf(stretch) - stretch.start_s, LONGEST_S);
    const latest = model.endOf(stretch) - long;
    const page = Math.floor((at.t - stretch.start_s) / (long * 0.8)) * long * 0.8; // it turns like a page, and overlaps
    const from = Math.min(Math.max(stretch.start_s + page, stretch.start_s), latest);
    const scale = width / (long * model.speed + 2 * MARGIN_MM);
    const values = [];
    for (let t = from; t < from + long; t += 0.01) values.push(model.valueAt(stretch.lead, t) ?? 0);
    const middle = (Math.max(...values) + Math.min(...values)) / 2;
    const [x0, y] = model.paperOf(stretch, from, middle);
    return { stretch, from, long, scale, x0: x0 - MARGIN_MM, y0: y - height / 4 / scale, tall: height / 2 / scale };
  }

  #paint(ctx, width, height, ratio) {
    ctx.clearRect(0, 0, width, height);
    const shown = this.#window(width, height);
    this.shown = shown;
    if (!shown) return;
    const { model } = this;
    const { stretch, scale, x0, y0 } = shown;
    const half = height / 2;
    ctx.save();
    ctx.beginPath();
    ctx.rect(0, 0, width, half);
    ctx.clip();
    ctx.fillStyle = "#fff";
    ctx.fillRect(0, 0, width, half);
    // picture to screen: by the corners of what is shown, straight within them
    const [p, q, r] = [[x0, y0], [x0 + 10, y0], [x0, y0 + 10]].map((point) => model.paper.toPicture(point));
    const [a, b, c, d] = [q[0] - p[0], r[0] - p[0], q[1] - p[1], r[1] - p[1]];
    const f = (10 * scale) / (a * d - b * c || 1);
    const [ia, ib, ic, id] = [d * f, -b * f, -c * f, a * f];
    ctx.setTransform(ratio * ia, ratio * ic, ratio * ib, ratio * id, -ratio * (ia * p[0] + ib * p[1]), -ratio * (ic * p[0] + id * p[1]));
    if (this.picture.complete && this.picture.naturalWidth) ctx.drawImage(this.picture, 0, 0, model.geometry.width, model.geometry.height);
    const px = 1 / Math.sqrt(Math.abs(ia * id - ib * ic));
    if (model.show.overlay) {
      ctx.globalAlpha = model.opacity * 0.7;
      ctx.lineJoin = "round";
      ctx.strokeStyle = colourOf(stretch.lead);
      ctx.lineWidth = 1.6 * px;
      ctx.stroke(pathOf(stretch.xy));
      ctx.globalAlpha = 1;
    }
    ctx.restore();
    this.#paintRecord(ctx, shown, width, half);
    const view = { scale: 1 };
    writeName(ctx, view, `${stretch.lead} on the page`, [8, 14], colourOf(stretch.lead));
    writeName(ctx, view, `${stretch.lead} as read`, [8, half + 14], colourOf(stretch.lead));
    if (model.cursor) {
      const x = (model.paperOf(stretch, model.cursor.t, 0)[0] - x0) * scale;
      ctx.strokeStyle = CURSOR;
      ctx.lineWidth = 1;
      ctx.beginPath();
      ctx.moveTo(x, 0);
      ctx.lineTo(x, height);
      ctx.stroke();
    }
  }

  #paintRecord(ctx, { stretch, from, long, scale, x0, y0, tall }, width, half) {
    const { model } = this;
    ctx.save();
    ctx.beginPath();
    ctx.rect(0, half, width, half);
    ctx.clip();
    ctx.translate(-x0 * scale, half - y0 * scale);
    ctx.scale(scale, scale);
    paintPaper(ctx, x0, y0, x0 + width / scale, y0 + tall, 1 / scale);
    const points = [];
    for (let t = from; t <= from + long; t += 1 / model.record.sampling_frequency_hz) {
      const mv = model.valueAt(stretch.lead, t);
      points.push(mv === null ? null : model.paperOf(stretch, t, mv));
    }
    ctx.strokeStyle = "#16181d";
    ctx.lineWidth = 1.6 / scale;
    ctx.lineJoin = "round";
    ctx.stroke(pathOf(points));
    ctx.restore();
  }

  #hover(event) {
    if (!this.shown) return;
    const { stretch, x0, scale } = this.shown;
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    const t = stretch.start_s + (x / scale + x0 - stretch.x0_mm) / this.model.speed;
    if (t >= stretch.start_s && t <= this.model.endOf(stretch)) this.model.set({ cursor: { lead: stretch.lead, row: stretch.row, t } });
  }
}
