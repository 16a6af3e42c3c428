// The lattice between the paper, in millimetres, and the picture of the page, in pixels.

export class Paper {
  constructor({ node_mm, xy }) {
    this.node = node_mm;
    this.xy = xy;
  }

  // Picture pixels of a paper point; beyond the lattice its last cell goes on.
  toPicture([x, y]) {
    const [u, j] = this.#cell(x / this.node, this.xy[0].length);
    const [v, i] = this.#cell(y / this.node, this.xy.length);
    const [a, b, c, d] = [this.xy[i][j], this.xy[i][j + 1], this.xy[i + 1][j], this.xy[i + 1][j + 1]];
    return [0, 1].map((k) => (1 - v) * ((1 - u) * a[k] + u * b[k]) + v * ((1 - u) * c[k] + u * d[k]));
  }

  // The paper point of a picture pixel, by Newton's steps.
  toPaper([px, py]) {
    let [x, y] = [((this.xy[0].length - 1) * this.node) / 2, ((this.xy.length - 1) * this.node) / 2];
    for (let step = 0; step < 12; step += 1) {
      const [qx, qy] = this.toPicture([x, y]);
      const [ax, ay] = this.toPicture([x + 1, y]);
      const [bx, by] = this.toPicture([x, y + 1]);
      const [a, b, c, d] = [ax - qx, bx - qx, ay - qy, by - qy];
      const determinant = a * d - b * c || 1e-9;
      const [ex, ey] = [px - qx, py - qy];
      const [dx, dy] = [(d * ex - b * ey) / determinant, (a * ey - c * ex) / determinant];
      x += dx;
      y += dy;
      if (Math.hypot(dx, dy) < 1e-3) break;
    }
    return [x, y];
  }

  #cell(position, nodes) {
    const index = Math.min(Math.max(Math.floor(position), 0), nodes - 2);
    return [position - index, index];
  }
}
