// The queue: jobs are chosen, and the list is not renewed under the person who chooses.

import "./upload.js";

const boxes = () => [...document.querySelectorAll("#chosen input[name=job]")];

function count() {
  const chosen = boxes().filter((box) => box.checked).length;
  const every = document.getElementById("every");
  const many = document.getElementById("many");
  if (!every || !many) return;
  every.checked = chosen > 0 && chosen === boxes().length;
  many.textContent = document.getElementById("all").checked ? "" : `${chosen} chosen`;
}

document.addEventListener("change", (event) => {
  if (event.target.id === "every") boxes().forEach((box) => (box.checked = event.target.checked));
  if (event.target.closest("#chosen")) count();
});

document.addEventListener("htmx:beforeRequest", (event) => {
  const busy = document.getElementById("all")?.checked || boxes().some((box) => box.checked);
  if (event.target.id === "queue" && (busy || document.activeElement?.closest("#chosen fieldset"))) event.preventDefault();
});

count();
