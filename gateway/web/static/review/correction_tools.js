// Tools that state something on the page itself: rows, columns, corners, parts, lines by hand.
// A tool draws, takes the pointer and the keys, and tells `changed` what it states, in pixels of the picture.

const COLOUR = "#0057e0";
const NEAR_PX = 14;

// Where lines of the paper are straight: in millimetres if the page was read, else on the picture.
export class Space {
  constructor(model) {
    this.paper = model.paper;
    const { width, height, columns, rows } = model.geometry;
    const known = this.paper && columns?.length;
    this.xs = known ? [columns[0][0], columns.at(-1)[1]] : [0.05 * width, 0.95 * width];
    this.ys = known ? rows.filter((y) => y !== null) : [];
    if (!this.paper) this.ys = [0.2 * height, 0.8 * height];
    this.rows = known ? rows : [];
    this.columns = known ? [...columns.map(([start]) => start), columns.at(-1)[1]] : [];
    this.unit = this.paper ? 0.5 : Math.max(1, height / 800);
  }

  in(point) {
    return this.paper ? this.paper.toPaper(point) : point;
  }

  out(point) {
    return this.paper ? this.paper.toPicture(point) : point;
  }
}

export function stroke(ctx, points, width, colour = COLOUR, closed = false) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.beginPath();
  points.forEach((point, k) => (k ? ctx.lineTo(...point) : ctx.moveTo(...point)));
  if (closed) ctx.closePath();
  ctx.stroke();
}

function spread(from, to, count) {
  return Array.from({ length: count }, (_, k) => (count === 1 ? (from + to) / 2 : from + ((to - from) * k) / (count - 1)));
}

// Parallel lines across the paper: the zero lines of the rows (axis 1), or where columns start and end (axis 0).
export class LinesTool {
  constructor({ space, axis, count, stated, changed }) {
    Object.assign(this, { space, axis, changed, chosen: 0 });
    const known = axis ? space.rows : space.columns;
    const ends = axis ? [Math.min(...space.ys), Math.max(...space.ys)] : space.xs;
    if (stated?.length === count) this.at = stated.map((point) => space.in(point)[axis]);
    else if (known.length === count && known.every((value) => value !== null)) this.at = [...known];
    else this.at = spread(...ends, count);
  }

  get hint() {
    return this.axis
      ? `Drag each of the ${this.at.length} lines onto the zero line of its row. Keys: , and . choose, arrows move.`
      : `Drag the lines to where each column starts; the last one to where the last column ends. Keys: , and . choose, arrows move.`;
  }

  down(found, point, event, view) {
    const [own] = [this.space.in(point)[this.axis]];
    const far = this.at.map((value) => Math.abs(value - own));
    const nearest = far.indexOf(Math.min(...far));
    const [a, b] = [this.#point(nearest, point), point];
    if (Math.hypot(a[0] - b[0], a[1] - b[1]) * view.scale > NEAR_PX) return false;
    this.chosen = nearest;
    return true;
  }

  drag(found, point) {
    this.at[this.chosen] = this.space.in(point)[this.axis];
    this.#tell();
  }

  up() {}

  key(event) {
    const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    const pick = { ",": -1, ".": 1 }[event.key];
    if (pick) this.chosen = (this.chosen + pick + this.at.length) % this.at.length;
    else if (step) {
      this.at[this.chosen] += step * this.space.unit * (event.shiftKey ? 5 : 1);
      this.#tell();
    } else return false;
    return true;
  }

  paint(ctx, view) {
    this.at.forEach((value, k) => {
      const [from, to] = this.axis ? this.space.xs : [Math.min(...this.space.ys) - (this.space.paper ? 15 : 0), Math.max(...this.space.ys) + (this.space.paper ? 15 : 0)];
      const line = spread(from, to, 24).map((other) => this.space.out(this.axis ? [other, value] : [value, other]));
      stroke(ctx, line, (k === this.chosen ? 3 : 1.8) / view.scale);
      ctx.fillStyle = COLOUR;
      ctx.beginPath();
      ctx.arc(...line[0], 6 / view.scale, 0, 7);
      ctx.fill();
    });
  }

  // The point of a line beside another point.
  #point(k, point) {
    const own = this.space.in(point);
    own[this.axis] = this.at[k];
    return this.space.out(own);
  }

  #tell() {
    const middle = this.axis ? (this.space.xs[0] + this.space.xs[1]) / 2 : this.space.ys.reduce((a, b) => a + b, 0) / (this.space.ys.length || 1);
    this.changed(this.at.map((value) => this.space.out(this.axis ? [middle, value] : [value, middle])));
  }
}

// Points that are dragged: the four corners of the sheet, or two of what is cut out.
export class PointsTool {
  constructor({ points, hint, shape, changed }) {
    Object.assign(this, { points, hint, shape, changed, chosen: 0 });
  }

  down(found, point, event, view) {
    const far = this.points.map(([x, y]) => Math.hypot(x - point[0], y - point[1]));
    const nearest = far.indexOf(Math.min(...far));
    if (far[nearest] * view.scale > 2 * NEAR_PX) return false;
    this.chosen = nearest;
    return true;
  }

  drag(found, point) {
    this.points[this.chosen] = point;
    this.changed(this.points);
  }

  up() {}

  key(event) {
    const move = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    const pick = { ",": -1, ".": 1 }[event.key];
    if (pick) this.chosen = (this.chosen + pick + this.points.length) % this.points.length;
    else if (move) {
      const step = event.shiftKey ? 20 : 4;
      const [x, y] = this.points[this.chosen];
      this.points[this.chosen] = [x + step * move[0], y + step * move[1]];
      this.changed(this.points);
    } else return false;
    return true;
  }

  paint(ctx, view) {
    stroke(ctx, this.shape(this.points), 2 / view.scale, COLOUR, true);
    this.points.forEach((point, k) => {
      ctx.fillStyle = k === this.chosen ? "#ff8a00" : COLOUR;
      ctx.beginPath();
      ctx.arc(...point, 7 / view.scale, 0, 7);
      ctx.fill();
    });
  }
}

// A pen: points along the ink of a row.  A stroke with the pointer is a line at once; single points end with Enter.
export class PenTool {
  constructor({ model, space, least, hint, done, changed }) {
    Object.assign(this, { model, space, least, hint, done, changed, points: [], stroke: 0 });
    const { cursor } = model;
    const stretch = cursor && model.stretchAt(cursor.lead, cursor.t, cursor.row);
    this.at = stretch ? space.out(model.paperOf(stretch, cursor.t, model.valueAt(cursor.lead, cursor.t))) : null;
  }

  down(found, point) {
    this.#add(point);
    this.stroke = 1;
    return true;
  }

  drag(found, point, event, view) {
    const last = this.points.at(-1);
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) * view.scale < 3) return;
    this.stroke += 1;
    this.#add(point);
  }

  up() {
    if (this.stroke > 3) this.#finish();
    this.stroke = 0;
  }

  key(event) {
    const move = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (move && this.at) {
      const step = event.shiftKey ? 10 : 2;
      this.at = [this.at[0] + step * move[0], this.at[1] + step * move[1]];
    } else if (event.key === " " && this.at) this.#add([...this.at]);
    else if (event.key === "Enter") this.#finish();
    else if (event.key === "Backspace" && this.points.length) this.points.pop();
    else return false;
    this.changed();
    return true;
  }

  paint(ctx, view) {
    const px = 1 / view.scale;
    if (this.points.length) stroke(ctx, this.points, 2.4 * px);
    for (const [x, y] of this.points) {
      ctx.fillStyle = COLOUR;
      ctx.fillRect(x - 2 * px, y - 2 * px, 4 * px, 4 * px);
    }
    if (!this.at) return;
    const [x, y] = this.at;
    stroke(ctx, [[x - 12 * px, y], [x + 12 * px, y]], 1.5 * px);
    stroke(ctx, [[x, y - 12 * px], [x, y + 12 * px]], 1.5 * px);
  }

  #add(point) {
    this.points.push(point);
    this.at = point;
    this.changed();
  }

  // Points go along time; the row is that whose zero line is nearest.
  #finish() {
    if (this.points.length >= this.least) {
      const own = this.points.map((point) => ({ point, u: this.space.in(point) })).sort((a, b) => a.u[0] - b.u[0]);
      const middle = own.reduce((sum, { u }) => sum + u[1], 0) / own.length;
      const far = this.space.rows.map((y) => (y === null ? Infinity : Math.abs(y - middle)));
      this.done(own.map(({ point }) => point), far.length ? far.indexOf(Math.min(...far)) + 1 : 1);
    }
    this.points = [];
    this.changed();
  }
}

// A rectangle that is dragged open.
export class BoxTool {
  constructor({ hint, done, changed }) {
    Object.assign(this, { hint, done, changed, box: null });
  }

  down(found, point) {
    this.box = [point, point];
    return true;
  }

  drag(found, point) {
    this.box = [this.box[0], point];
    this.changed();
  }

  up() {
    const corners = cornersOf(this.box);
    this.box = null;
    if (Math.abs(corners[2][0] - corners[0][0]) > 4 && Math.abs(corners[2][1] - corners[0][1]) > 4) this.done(corners);
    this.changed();
  }

  key() {
    return false;
  }

  paint(ctx, view) {
    if (this.box) stroke(ctx, cornersOf(this.box), 2 / view.scale, COLOUR, true);
  }
}

// The four corners of a box between two points, from the top left.
export function cornersOf([[ax, ay], [bx, by]]) {
  const [x0, x1, y0, y1] = [Math.min(ax, bx), Math.max(ax, bx), Math.min(ay, by), Math.max(ay, by)];
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
}
