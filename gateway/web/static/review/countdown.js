// How long a decision can still be taken back; the form goes when its time has passed.

setInterval(() => {
  for (const each of document.querySelectorAll(".countdown")) {
    each.dataset.seconds -= 1;
    each.textContent = Math.max(each.dataset.seconds, 0);
    if (each.dataset.seconds <= 0) each.closest("form").remove();
  }
}, 1000);
