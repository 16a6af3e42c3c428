// What was read from one page: its record, its geometry, and what the reviewer points at.

import { Paper } from "./paper.js";

export const LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"];
const COLOURS = ["#d62728", "#1f77b4", "#2c8c2c", "#943cbd", "#c86400", "#008c96", "#784632", "#dc14a0", "#4646c8", "#6e8200", "#006446", "#a0003c"];
const WORDS = {
  spike: "A stroke of ink is not in the record",
  wave: "A part of a wave is not in the record",
  line: "A line of ink is not in the record",
  blot: "A spot of ink is not in the record",
  unsupported: "Traced where no ink is",
  shared: "Two leads follow the same ink",
  print: "Follows print, not the trace",
  cut: "Runs off the picture: the height there is not known",
  gap: "Nothing was traced",
  unsure: "Traced, but not surely",
};

export const colourOf = (lead) => COLOURS[LEADS.indexOf(lead)] ?? "#3a3f4a"; // leads beside the twelve
export const wordsOf = (doubt) => WORDS[doubt.kind] ?? doubt.kind;

export function boxOf(points) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  return { x0: Math.min(...xs), y0: Math.min(...ys), x1: Math.max(...xs), y1: Math.max(...ys) };
}

export class Model extends EventTarget {
  constructor(geometry, record) {
    super();
    this.geometry = geometry;
    this.record = record;
    this.paper = geometry.lattice ? new Paper(geometry.lattice) : null;
    this.stretches = geometry.stretches ?? [];
    this.doubts = geometry.doubts ?? [];
    this.cursor = null; // { lead, t }: the same instant of the same lead in every picture
    this.doubt = -1;
    this.print = null; // a box of print to point at
    this.calipers = null; // { lead, a: { t, mv }, b: { t, mv } }
    this.show = { overlay: true, names: true, grid: false, marks: true };
    this.opacity = 0.85;
  }

  set(changes) {
    Object.assign(this, changes);
    this.dispatchEvent(new Event("change"));
  }

  lead(name) {
    return this.record?.leads.find((each) => each.lead === name);
  }

  // mV of a lead at a time, null where nothing is known.
  valueAt(name, t) {
    const lead = this.lead(name);
    const uv = lead?.uv[Math.round(t * this.record.sampling_frequency_hz) - lead.first];
    return uv === undefined || uv === null ? null : uv / 1000;
  }

  get speed() {
    return this.geometry.paper_speed_mm_per_s;
  }

  // The stretch of a lead that holds a time: of several the shortest, which is not the rhythm strip.
  stretchAt(lead, t, row = undefined) {
    const holds = this.stretches.filter((s) => s.lead === lead && t >= s.start_s - 1e-3 && t <= this.endOf(s) + 1e-3);
    const same = holds.filter((s) => s.row === row);
    return (same.length ? same : holds).sort((a, b) => a.xy.length - b.xy.length)[0];
  }

  endOf(stretch) {
    return stretch.start_s + stretch.xy.length * stretch.step_s;
  }

  paperOf(stretch, t, mv) {
    return [stretch.x0_mm + (t - stretch.start_s) * this.speed, stretch.zero_mm - (mv ?? 0) * stretch.mm_per_mv];
  }

  // The stretch under a paper point, its time and its mV there; null where there is none.
  under([x, y]) {
    let best = null;
    for (const stretch of this.stretches) {
      const t = stretch.start_s + (x - stretch.x0_mm) / this.speed;
      if (t < stretch.start_s || t > this.endOf(stretch)) continue;
      const mv = (stretch.zero_mm - y) / stretch.mm_per_mv;
      const far = Math.abs(y - this.paperOf(stretch, t, this.valueAt(stretch.lead, t))[1]);
      if (!best || far < best.far) best = { stretch, lead: stretch.lead, row: stretch.row, t, mv, far };
    }
    return best && best.far < 25 ? best : null;
  }

  // What the calipers measure, in words; "" while there are none.
  measured() {
    if (!this.calipers) return "";
    const { a, b } = this.calipers;
    const ms = Math.abs(b.t - a.t) * 1000;
    const rate = ms >= 100 ? ` · ${Math.round(60000 / ms)}/min` : "";
    return `${ms.toFixed(0)} ms${rate} · ${(b.mv - a.mv).toFixed(2)} mV`;
  }
}
