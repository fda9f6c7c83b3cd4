"use strict";

// The tables sort by any column: what has no value comes last either way, equal rows keep the leaderboard's order.
const collator = new Intl.Collator("en", { numeric: true });

function sort(table, column, direction) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].dataset.order;
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || place(a) - place(b);
    const [p, q] = [Number(x), Number(y)];
    const order = Number.isNaN(p) || Number.isNaN(q) ? collator.compare(x, y) : p - q;
    return sign * order || place(a) - place(b);
  });
  body.append(...rows);
}

function place(row) {
  return Number(row.cells[0].dataset.order);
}

for (const table of document.querySelectorAll("table.leaderboard")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    button.addEventListener("click", () => {
      const now = heading.getAttribute("aria-sort");
      const other = { ascending: "descending", descending: "ascending" };
      const direction = now ? other[now] : button.dataset.first;
      for (const one of headings) one.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", direction);
      sort(table, column, direction);
    });
  });
}

// A filter hides rows of its table and of the plots below it, but never a control.
for (const board of document.querySelectorAll("[data-board]")) {
  const form = board.querySelector(".filter");
  if (!form) continue;
  const [text, best] = form.querySelectorAll("input");
  const rows = [...board.querySelectorAll("[data-name]")];
  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const name = row.dataset.name.toLowerCase();
      const wanted = words.every((word) => name.includes(word)) || "control" in row.dataset;
      row.hidden = !wanted || (best.checked && !("best" in row.dataset));
    }
    const listed = rows.filter((row) => row.matches("tr"));
    const shown = listed.filter((row) => !row.hidden).length;
    const filtered = words.length || best.checked;
    form.querySelector("output").value = filtered ? `${shown} of ${listed.length} rows; controls stay` : "";
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
}

// A class is singled out in all maps of its dataset.
for (const legend of document.querySelectorAll("[data-classes]")) {
  const maps = [...legend.parentElement.querySelectorAll(".map [data-class]")];
  const buttons = [...legend.querySelectorAll("button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const one of buttons) one.setAttribute("aria-pressed", String(on && one === button));
      for (const mark of maps) mark.classList.toggle("faded", on && mark.dataset.class !== button.dataset.class);
    });
  }
}

const openAll = document.getElementById("open-all");
openAll.hidden = false;
openAll.addEventListener("click", () => {
  const parts = [...document.querySelectorAll("details.part, details.more")];
  const open = parts.some((part) => !part.open);
  for (const part of parts) part.open = open;
  openAll.textContent = open ? "Close all sections" : "Open all sections";
});
