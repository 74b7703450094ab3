"use strict";
// The numbers behind a figure, shown when a reader opens them.
(() => {
  const { element, load, failed } = saeflow;
  const short = (cell) => {
    if (cell === null) return "–";
    const value = Number(cell);
    return cell !== "" && Number.isFinite(value) && !Number.isInteger(value) ? saeflow.number(value, 4) : cell;
  };

  const table = ({ columns, rows, count }, name) => {
    const told = rows.length < count ? `The first ${rows.length} of ${count.toLocaleString("en-US")} rows; the CSV has all.` : `${count} ${count === 1 ? "row" : "rows"}.`;
    return element("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": `Numbers of ${name}` },
      element("table", {},
        element("caption", {}, told),
        element("thead", {}, element("tr", {}, columns.map((column) => element("th", { scope: "col" }, column.replaceAll("_", " "))))),
        element("tbody", {}, rows.map((row) => element("tr", {}, row.map((cell) => element("td", {}, short(cell))))))));
  };

  for (const details of document.querySelectorAll("details[data-table^='figure-']")) {
    const place = details.querySelector("div");
    details.addEventListener("toggle", async () => {
      if (!details.open || place.childElementCount) return;
      try {
        place.replaceChildren(table(await load(details.dataset.table), details.dataset.table.slice(7).replaceAll("_", " ")));
      } catch (error) {
        failed(place, error);
      }
    });
  }
})();
