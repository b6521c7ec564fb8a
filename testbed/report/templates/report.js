"use strict";
(() => {
  const table = document.getElementById("flows");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const text = document.getElementById("flow-filter");
  const priority = document.getElementById("flow-priority");
  const told = document.getElementById("flow-count");
  const show = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      const fits = words.every((word) => content.includes(word)) &&
        (!priority.value || row.dataset.priority === priority.value);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    const all = rows.length === 1 ? "1 flow" : `${rows.length} flows`;
    told.textContent = shown === rows.length ? all : `${shown} of ${all}`;
  };
  const collator = new Intl.Collator("en", { numeric: true });
  const key = (row, column) => row.cells[column].dataset.sort || row.cells[column].textContent.trim();
  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => collator.compare(key(a, head.cellIndex), key(b, head.cellIndex)) * (down ? -1 : 1));
      body.append(...rows);
    });
  }
  document.querySelector(".tools").hidden = false;
  text.addEventListener("input", show);
  priority.addEventListener("change", show);
  show();
})();
