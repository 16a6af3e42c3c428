// A canvas that shows a part of a world: zoom, pan and pointer, the same for every picture of the workbench.

const LARGEST = 40;

export class Viewport {
  // `paint(ctx, viewport)` draws in world units; `listener` hears hover(point), leave(), and may take the pointer:
  // down(point) returns whether it did, then drag(point) and up(point) follow.
  constructor(canvas, world, paint, listener) {
    Object.assign(this, { canvas, world, paint, listener, scale: 1, x: 0, y: 0, fitted: world });
    canvas.viewport = this;
    this.pointers = new Map();
    this.drawn = false;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => this.pointers.size || this.listener.leave());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => this.fit());
    canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  // Show a part of the world as large as it goes.
  fit(box = this.fitted) {
    const { width, height } = this.size;
    this.fitted = box;
    this.whole = true;
    this.scale = Math.min(width / (box.x1 - box.x0), height / (box.y1 - box.y0), LARGEST);
    this.x = width / 2 - (this.scale * (box.x0 + box.x1)) / 2;
    this.y = height / 2 - (this.scale * (box.y0 + box.y1)) / 2;
    this.repaint();
  }

  // Bring a box into the middle, magnified so far that it is seen well, and no further than it already is.
  goTo(box, share = 0.25) {
    const { width, height } = this.size;
    const wanted = share * Math.min(width / (box.x1 - box.x0), height / (box.y1 - box.y0));
    this.whole = false;
    this.scale = Math.min(Math.max(wanted, this.#fitScale() * 1.8), this.#fitScale() * 6);
    this.x = width / 2 - (this.scale * (box.x0 + box.x1)) / 2;
    this.y = height / 2 - (this.scale * (box.y0 + box.y1)) / 2;
    this.repaint();
  }

  zoom(factor, at = { x: this.size.width / 2, y: this.size.height / 2 }) {
    const scale = Math.min(Math.max(this.scale * factor, this.#fitScale() / 3), LARGEST * Math.max(this.#fitScale(), 1));
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.whole = false;
    this.repaint();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.whole = false;
    this.repaint();
  }

  toWorld(at) {
    return [(at.x - this.x) / this.scale, (at.y - this.y) / this.scale];
  }

  toScreen([x, y]) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  get size() {
    return { width: this.canvas.clientWidth || 1, height: this.canvas.clientHeight || 1 };
  }

  repaint() {
    if (this.drawn) return;
    this.drawn = true;
    requestAnimationFrame(() => {
      this.drawn = false;
      const ctx = this.canvas.getContext("2d");
      const ratio = window.devicePixelRatio || 1;
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
      ctx.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.x, ratio * this.y);
      this.paint(ctx, this);
      this.canvas.dataset.zoom = (this.scale / this.#fitScale()).toFixed(2);
    });
  }

  #fitScale() {
    const box = this.fitted;
    return Math.min(this.size.width / (box.x1 - box.x0), this.size.height / (box.y1 - box.y0));
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.size.width * ratio);
    this.canvas.height = Math.round(this.size.height * ratio);
    if (this.whole ?? true) this.fit();
    else this.repaint();
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    this.pointers.set(event.pointerId, at);
    this.taken = this.pointers.size === 1 && this.listener.down(this.toWorld(at), event);
  }

  #move(event) {
    const at = this.#at(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.listener.hover(this.toWorld(at));
    this.pointers.set(event.pointerId, at);
    if (this.taken) return this.listener.drag(this.toWorld(at), event);
    if (this.pointers.size === 1) return this.pan(at.x - before.x, at.y - before.y);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
    const far = Math.hypot(at.x - other.x, at.y - other.y) / (Math.hypot(before.x - other.x, before.y - other.y) || 1);
    return this.zoom(far, other);
  }

  #up(event) {
    const at = this.#at(event);
    if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
    if (this.taken) this.listener.up(this.toWorld(at), event);
    else this.listener.hover(this.toWorld(at));
    this.taken = false;
  }

  #wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 400), this.#at(event));
  }

  #key(event) {
    if (this.listener.key?.(event)) {
      event.preventDefault();
      event.stopPropagation();
      this.repaint();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) {
      if (event.key !== "+") return;
    }
    const step = 60;
    const actions = {
      "+": () => this.zoom(1.4),
      "=": () => this.zoom(1.4),
      "-": () => this.zoom(1 / 1.4),
      0: () => this.fit(),
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }
}
