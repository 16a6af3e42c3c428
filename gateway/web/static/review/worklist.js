// Keys of the worklist: j and k, or the arrows, go through the jobs; Enter opens one.

import "./countdown.js";

const jobs = () => [...document.querySelectorAll(".worklist a.open")];

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = jobs();
  const at = all.indexOf(document.activeElement);
  all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)]?.focus();
});

// The list renews itself: the job that had the focus keeps it.
let focused = "";
document.addEventListener("htmx:beforeSwap", () => (focused = document.activeElement?.id ?? ""));
document.addEventListener("htmx:afterSettle", () => focused && document.getElementById(focused)?.focus());

if (!document.activeElement || document.activeElement === document.body) jobs()[0]?.focus({ preventScroll: true });
