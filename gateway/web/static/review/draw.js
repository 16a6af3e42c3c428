// What the pictures draw alike: names, the cursor, and calipers.

import { colourOf } from "./model.js";

export const CURSOR = "#0b57d0";
const CALIPER = "#b0004e";

// Text of a constant size on the screen, on a pale ground, so that it is read on ink as well.
export function writeName(ctx, viewport, text, [x, y], colour, size = 12) {
  const px = 1 / viewport.scale;
  ctx.font = `700 ${size * px}px system-ui, "DejaVu Sans", sans-serif`;
  ctx.textBaseline = "middle";
  const width = ctx.measureText(text).width;
  ctx.fillStyle = "rgba(255,255,255,.82)";
  ctx.fillRect(x - 2 * px, y - (size / 2 + 2) * px, width + 4 * px, (size + 4) * px);
  ctx.fillStyle = colour;
  ctx.fillText(text, x, y);
}

// A ring on the trace, and a line across it.
export function drawCursor(ctx, viewport, [x, y], [dx, dy]) {
  const px = 1 / viewport.scale;
  ctx.strokeStyle = CURSOR;
  ctx.lineWidth = 1.2 * px;
  ctx.beginPath();
  ctx.moveTo(x - dx, y - dy);
  ctx.lineTo(x + dx, y + dy);
  ctx.stroke();
  ctx.lineWidth = 2.2 * px;
  ctx.beginPath();
  ctx.arc(x, y, 5 * px, 0, 7);
  ctx.stroke();
}

// Calipers between two points; `across` is the direction of their legs.
export function drawCalipers(ctx, viewport, a, b, across, words) {
  const px = 1 / viewport.scale;
  const long = 46 * px;
  ctx.strokeStyle = CALIPER;
  ctx.lineWidth = 1.6 * px;
  for (const [x, y] of [a, b]) {
    ctx.beginPath();
    ctx.moveTo(x - across[0] * long, y - across[1] * long);
    ctx.lineTo(x + across[0] * long, y + across[1] * long);
    ctx.stroke();
    ctx.beginPath();
    ctx.arc(x, y, 4 * px, 0, 7);
    ctx.stroke();
  }
  const up = across[1] < 0 ? 1 : -1; // the words stand above, whichever way millivolts grow
  const top = [up * across[0] * long, up * across[1] * long];
  ctx.setLineDash([4 * px, 3 * px]);
  ctx.beginPath();
  ctx.moveTo(a[0] + top[0], a[1] + top[1]);
  ctx.lineTo(b[0] + top[0], b[1] + top[1]);
  ctx.stroke();
  ctx.setLineDash([]);
  const middle = [(a[0] + b[0]) / 2 + top[0], (a[1] + b[1]) / 2 + top[1] - 12 * px];
  writeName(ctx, viewport, words, middle, CALIPER, 13);
}

export { colourOf };
