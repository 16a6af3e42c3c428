// The page as it was received, with what was read from it drawn over it.

import { drawCalipers, drawCursor, writeName } from "./draw.js";
import { boxOf, colourOf } from "./model.js";
import { Viewport } from "./viewport.js";

export class PageView {
  // `pointing` is the tool in use: it hears what the viewport tells (see `Viewport`).
  constructor(canvas, model, picture, pointing) {
    this.model = model;
    this.picture = picture;
    this.tool = null; // of a correction: draws, and takes the pointer and the keys first
    this.statements = null; // draws what a correction states
    const { width, height } = model.geometry;
    this.traces = model.stretches.map((stretch) => ({ stretch, path: pathOf(stretch.xy), name: this.#nameAt(stretch) }));
    const all = model.stretches.flatMap((stretch) => stretch.xy.filter(Boolean));
    const listener = {
      hover: (point) => pointing.hover(this.found(point), point),
      leave: () => pointing.leave(),
      place: () => this.place(model.cursor),
      down: (point, event) => (this.tool ?? pointing).down(this.found(point), point, event, this.viewport),
      drag: (point, event) => (this.tool ?? pointing).drag(this.found(point), point, event, this.viewport),
      up: (point, event) => (this.tool ?? pointing).up(this.found(point), point, event, this.viewport),
      key: (event) => this.tool?.key(event),
    };
    this.viewport = new Viewport(canvas, { x0: 0, y0: 0, x1: width, y1: height }, (ctx, view) => this.#paint(ctx, view), listener);
    this.ink = all.length ? grown(boxOf(all), 0.03, width, height) : this.viewport.world;
    this.viewport.fit(this.ink);
    picture.addEventListener("load", () => this.viewport.repaint());
    model.addEventListener("change", () => this.viewport.repaint());
  }

  found(point) {
    return this.model.paper ? this.model.under(this.model.paper.toPaper(point)) : null;
  }

  showDoubt(doubt) {
    this.viewport.goTo(boxOf(doubt.box));
  }

  place({ lead, row, t }, mv = this.model.valueAt(lead, t)) {
    const stretch = this.model.stretchAt(lead, t, row);
    return stretch && this.model.paper.toPicture(this.model.paperOf(stretch, t, mv));
  }

  // Names stand beside the ink: above what the lead shows at its start, and above the name that is printed there.
  #nameAt(stretch) {
    const { paper, speed, geometry } = this.model;
    const start = stretch.xy.slice(0, Math.round(7 / speed / stretch.step_s)).filter(Boolean);
    const traced = start.map((point) => paper.toPaper(point)[1] - 3.2);
    const printed = geometry.labels
      .map(({ xy }) => paper.toPaper(xy))
      .filter(([x, y]) => Math.abs(x - stretch.x0_mm - 3) < 10 && Math.abs(y - stretch.zero_mm) < 16)
      .map(([, y]) => y - 4.2);
    return paper.toPicture([stretch.x0_mm + 0.5, Math.min(stretch.zero_mm - 6, ...traced, ...printed)]);
  }

  #paint(ctx, view) {
    const { model } = this;
    const px = 1 / view.scale;
    ctx.imageSmoothingEnabled = view.scale < 3;
    ctx.imageSmoothingQuality = "high";
    if (this.picture.complete && this.picture.naturalWidth) {
      ctx.drawImage(this.picture, 0, 0, model.geometry.width, model.geometry.height);
    }
    ctx.lineJoin = "round";
    if (model.show.grid && model.paper) this.#paintGrid(ctx, px);
    if (model.show.overlay) this.#paintTraces(ctx, view, px);
    if (model.show.marks) this.#paintDoubts(ctx, px);
    if (model.print) outline(ctx, model.print, "#0b57d0", 2.5 * px);
    if (model.paper && model.cursor) {
      const at = this.place(model.cursor);
      if (at) drawCursor(ctx, view, at, this.#across(model.cursor, 10));
    }
    if (model.paper && model.calipers) {
      const { lead, row, a, b } = model.calipers;
      const [from, to] = [a, b].map(({ t, mv }) => this.place({ lead, row, t }, mv));
      if (from && to) drawCalipers(ctx, view, from, to, this.#across({ lead, row, t: a.t }), model.measured());
    }
    this.statements?.(ctx, view);
    this.tool?.paint(ctx, view);
  }

  // The direction of millivolts on the picture, `mm` long; without `mm` one unit.
  #across(cursor, mm = 0) {
    const [x0, y0] = this.place(cursor, 0);
    const [x1, y1] = this.place(cursor, 0.1);
    const far = Math.hypot(x1 - x0, y1 - y0) || 1;
    const unit = mm ? (far / (0.1 * Math.abs(this.model.stretchAt(cursor.lead, cursor.t, cursor.row).mm_per_mv))) * mm : 1;
    return [((x1 - x0) / far) * unit, ((y1 - y0) / far) * unit];
  }

  #paintGrid(ctx, px) {
    const { xy } = this.model.paper;
    ctx.strokeStyle = "rgba(20,130,80,.55)";
    ctx.lineWidth = px;
    ctx.beginPath();
    for (const row of xy) row.forEach(([x, y], j) => (j ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
    for (let j = 0; j < xy[0].length; j += 1) xy.forEach((row, i) => (i ? ctx.lineTo(...row[j]) : ctx.moveTo(...row[j])));
    ctx.stroke();
  }

  #paintTraces(ctx, view, px) {
    const { model } = this;
    for (const { stretch, path } of this.traces) {
      const chosen = model.cursor?.lead === stretch.lead;
      ctx.globalAlpha = model.opacity;
      ctx.strokeStyle = colourOf(stretch.lead);
      ctx.lineWidth = (chosen ? 2.6 : 1.6) * px;
      ctx.stroke(path);
    }
    ctx.globalAlpha = 1;
    if (!model.show.names) return;
    for (const { stretch, name } of this.traces) writeName(ctx, view, stretch.lead, name, colourOf(stretch.lead));
  }

  #paintDoubts(ctx, px) {
    this.model.doubts.forEach((doubt, index) => {
      const chosen = index === this.model.doubt;
      const soft = doubt.kind === "gap" || doubt.kind === "unsure";
      ctx.setLineDash(soft ? [5 * px, 4 * px] : []);
      if (chosen) {
        ctx.fillStyle = "rgba(255,190,0,.18)";
        ctx.fill(pathOf([...doubt.box, doubt.box[0]]));
      }
      outline(ctx, doubt.box, soft ? "#b36b00" : "#e00000", (chosen ? 3.2 : 1.8) * px);
      ctx.setLineDash([]);
    });
  }
}

export function outline(ctx, box, colour, width) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.stroke(pathOf([...box, box[0]]));
}

// A path through points; null interrupts it.
export function pathOf(points) {
  const path = new Path2D();
  let down = false;
  for (const point of points) {
    if (!point) down = false;
    else if (down) path.lineTo(...point);
    else {
      path.moveTo(...point);
      down = true;
    }
  }
  return path;
}

function grown(box, share, width, height) {
  const more = share * Math.max(box.x1 - box.x0, box.y1 - box.y0);
  return {
    x0: Math.max(box.x0 - more, 0),
    y0: Math.max(box.y0 - 2 * more, 0),
    x1: Math.min(box.x1 + more, width),
    y1: Math.min(box.y1 + more, height),
  };
}
