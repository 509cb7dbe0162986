"use strict";
const slider = document.getElementById("slider");
const stack = document.getElementById("compare");
if (slider) {
  const move = () => {
    stack.style.setProperty("--at", slider.value + "%");
    slider.setAttribute("aria-valuetext", `${slider.value} percent ${slider.dataset.what || "before"}`);
  };
  slider.addEventListener("input", move);
  move();
}

// Which of several images lie left and right of the line.
const choose = document.getElementById("choose");
if (choose) {
  const shots = Array.from(stack.querySelectorAll("img"));
  const take = () => {
    const [left, right] = ["left", "right"].map((id) => document.getElementById(id).value);
    for (const shot of shots) {
      const title = shot.dataset.title;
      shot.className = title === left ? "before" : title === right ? "after" : "spare";
    }
    document.getElementById("left-name").textContent = left;
    document.getElementById("right-name").textContent = right;
  };
  choose.hidden = false;
  choose.addEventListener("input", take);
  take();
}

const show = document.getElementById("show-sources");
if (show) {
  show.addEventListener("change", () => {
    for (const overlay of document.querySelectorAll(".overlay")) overlay.classList.toggle("off", !show.checked);
  });
}

const choice = document.getElementById("window");
if (choice) {
  const choose = () => {
    for (const layer of document.querySelectorAll("[data-window]")) {
      layer.classList.toggle("off", layer.dataset.window !== choice.value);
    }
    const name = "data-alt-" + choice.selectedIndex;
    for (const plot of document.querySelectorAll(`svg[${name}]`)) plot.setAttribute("aria-label", plot.getAttribute(name));
  };
  choice.addEventListener("change", choose);
  // A browser may remember what was chosen before the page was loaded again.
  choose();
}

// One stop of the tabulator for all marks; the arrow keys go from one to the next.
const marks = Array.from(document.querySelectorAll(".overlay [role=option]"));
const text = document.getElementById("source-text");
const tell = (mark) => {
  for (const other of marks) other.setAttribute("aria-selected", String(other === mark));
  text.textContent = mark.getAttribute("aria-label");
};
marks.forEach((mark, number) => {
  mark.addEventListener("focus", () => tell(mark));
  mark.addEventListener("pointerenter", () => tell(mark));
  mark.addEventListener("keydown", (event) => {
    const last = marks.length - 1;
    const next = {
      ArrowRight: number + 1, ArrowDown: number + 1, ArrowLeft: number - 1, ArrowUp: number - 1, Home: 0, End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const to = marks[Math.max(0, Math.min(last, next))];
    for (const other of marks) other.setAttribute("tabindex", other === to ? "0" : "-1");
    to.focus();
  });
});

const said = document.getElementById("said");
for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const rows = head.closest("table").tBodies[0];
    const numeric = button.dataset.numeric === "1";
    const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const key = (row) => row.cells[head.cellIndex].textContent.trim();
    const compare = (a, b) => {
      if (!numeric) return way * a.localeCompare(b, "en", { numeric: true });
      const [x, y] = [parseFloat(a), parseFloat(b)];
      // What is not known stays at the end either way.
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return way * (x - y);
    };
    const sorted = Array.from(rows.rows).map((row) => [key(row), row]).sort((a, b) => compare(a[0], b[0]));
    rows.append(...sorted.map(([, row]) => row));
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
    said.textContent = `Sorted by ${button.textContent}, ${way === 1 ? "ascending" : "descending"}`;
  });
}
