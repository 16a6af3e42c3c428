// Files that are dropped, or chosen: one request a file, two at a time, with their progress.

const panel = document.getElementById("upload");
const waiting = [];
let sending = 0;
const AT_ONCE = 2;

function identity() {
  const fields = [...panel.querySelectorAll("[data-field]")].filter((field) => field.value.trim());
  return Object.fromEntries(fields.map((field) => [field.dataset.field, field.value.trim()]));
}

function add(files) {
  for (const file of files) {
    const line = document.createElement("li");
    const name = document.createElement("span");
    const bar = document.createElement("progress");
    const words = document.createElement("span");
    name.textContent = file.name;
    bar.max = 1;
    bar.value = 0;
    words.textContent = "waits";
    line.append(name, bar, words);
    document.getElementById("uploads").append(line);
    waiting.push({ file, line, bar, words, identity: identity() });
  }
  next();
}

function next() {
  while (sending < AT_ONCE && waiting.length) send(waiting.shift());
}

function send({ file, line, bar, words, identity }) {
  const request = new XMLHttpRequest();
  sending += 1;
  request.open("POST", panel.dataset.target);
  request.setRequestHeader("X-CSRF-Token", document.querySelector("meta[name=csrf-token]").content);
  request.setRequestHeader("X-File-Name", encodeURIComponent(file.name));
  request.setRequestHeader("X-Identity", encodeURIComponent(JSON.stringify(identity)));
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.upload.addEventListener("progress", (event) => {
    if (event.lengthComputable && event.total) bar.value = event.loaded / event.total;
    words.textContent = bar.value < 1 ? `${Math.round(100 * bar.value)} %` : "is being stored";
  });
  request.addEventListener("load", () => answered(request, line, words));
  request.addEventListener("error", () => failed(line, words, "Not sent: the connection broke. Drop it again."));
  request.addEventListener("loadend", () => {
    bar.remove();
    sending -= 1;
    next();
  });
  request.send(file);
}

function answered(request, line, words) {
  if (request.status === 401) return failed(line, words, "Your session has ended: log in in another tab, then drop it again.");
  let answer = {};
  try {
    answer = JSON.parse(request.responseText);
  } catch {
    answer = { problem: `Not taken: the gateway answered ${request.status}.` };
  }
  if (!answer.job) return failed(line, words, answer.problem ?? `Not taken: the gateway answered ${request.status}.`);
  const link = document.createElement("a");
  link.href = panel.dataset.jobs + answer.job;
  link.textContent = answer.job.slice(0, 8);
  words.textContent = answer.duplicate ? "known before: job " : "taken: job ";
  words.append(link);
  line.className = "good";
}

function failed(line, words, problem) {
  words.textContent = problem;
  line.className = "bad";
}

if (panel) {
  panel.hidden = false; // it needs this script
  const drop = document.getElementById("drop");
  document.getElementById("files").addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
  // a file that misses the field must not replace the page
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("dragenter", (event) => {
    if ([...(event.dataTransfer?.types ?? [])].includes("Files")) panel.open = true;
  });
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    add(event.dataTransfer.files);
  });
}
