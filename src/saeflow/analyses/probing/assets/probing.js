"use strict";
// Tables that a reader sorts by a column and filters by words; without this script they are tables as they stand.
(() => {
  const value = (row, place) => row.cells[place].textContent.trim();
  const numeric = (text) => Number.parseFloat(text.replaceAll(",", "").replace("–", "NaN"));

  const sortBy = (body, place, down) => {
    const rows = [...body.rows];
    const numbers = rows.every((row) => value(row, place) === "–" || Number.isFinite(numeric(value(row, place))));
    rows.sort((a, b) => {
      const [left, right] = [value(a, place), value(b, place)];
      if (!numbers) return down * left.localeCompare(right);
      const [x, y] = [numeric(left), numeric(right)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return down * (x - y);
    });
    body.replaceChildren(...rows);
  };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const body = table.tBodies[0];
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sortBy(body, head.cellIndex, up ? 1 : -1);
      });
    }
    const field = document.querySelector(`input[data-filters="${table.id}"]`);
    const count = document.querySelector(`[data-counts="${table.id}"]`);
    if (!field) continue;
    field.closest("[hidden]").hidden = false;
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${body.rows.length} rows`;
    });
  }
})();
