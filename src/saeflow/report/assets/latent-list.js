"use strict";
// The list of latents, or of concepts: only the rows in sight are on the page, however many there are.
(() => {
  const { element, number, percent, token } = saeflow;
  const ROW = 38; // pixels, as in the stylesheet
  const SPARE = 8; // rows above and below the visible ones

  // A column for every statistic; widths are in rem.
  saeflow.statisticColumns = (index, width = 6.4) => index.statistics.map((one) => ({
    name: one.name, label: one.label, explanation: one.explanation, width: one.form === "power" ? width + 1.2 : width, sorts: true, numeric: true,
    cell: (row) => (one.form === "share" ? percent(index.valueOf(one.name, row)) : number(index.valueOf(one.name, row))),
  }));

  const breakable = (name) => name.split(/(?<=_)/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));

  const columnsOf = (index) => [
    { name: "latent", label: "latent", width: 5.5, sorts: true, cell: (latent) => element("a", { href: `#/${index.sae}/${latent}`, tabindex: -1 }, String(latent)) },
    index.has.labels && { name: "label", label: "label", width: 14, grows: 2, cell: (latent) => index.named(latent) },
    index.has.fires && { name: "fires", label: index.headings.fires ?? "fires most on", width: 8, grows: 1, cell: (latent) => (index.firesOn(latent) === null ? "–" : token(index.firesOn(latent))) },
    index.has.promotes && { name: "promotes", label: "promotes", width: 16, grows: 2, cell: (latent) => index.promoted(latent).map((word) => [token(word), " "]) },
    index.has.targets && {
      name: "goal", label: "target of", width: 8,
      cell: (latent) => (index.targets.get(latent) ?? []).map((goal) => goal.replaceAll("_", " ")).join(", ") || "–",
    },
    index.has.classes && { name: "class", label: "class", width: 6.5, cell: (latent) => index.classOf(latent) },
    index.has.sets && { name: "set", label: "set", width: 9, cell: (latent) => breakable(index.setOf(latent) ?? "–") },
    ...saeflow.statisticColumns(index),
  ].filter(Boolean);

  // A grid in a place. `open(row)` and `sort(name)` are called when a reader asks for it.
  saeflow.latentList = (place, index, { open, sort, columns = columnsOf(index), label = `Latents of ${index.sae}` }) => {
    let rows = new Uint32Array();
    let active = 0;
    let first = -1;
    let last = -1;

    const heads = columns.map((column) => element("div", { role: "columnheader", class: column.numeric ? "numeric" : null, title: column.explanation },
      column.sorts ? element("button", { type: "button", tabindex: -1, onclick: () => sort(column.name) }, column.label) : column.label));
    const head = element("div", { role: "rowgroup", class: "head" }, element("div", { role: "row", "aria-rowindex": 1, class: "row" }, heads));
    const body = element("div", { role: "rowgroup", class: "rows" });
    const grid = element("div", {
      class: "grid", role: "grid", tabindex: 0, "aria-label": label, "aria-colcount": columns.length,
      "--columns": columns.map(({ width, grows }) => (grows ? `minmax(${width}rem, ${grows}fr)` : `${width}rem`)).join(" "),
      "--total": `${columns.reduce((sum, { width }) => sum + width + 1, 1)}rem`,
    }, head, body);
    place.replaceChildren(grid);

    const row = (at) => element("div", {
      role: "row", id: `row-${at}`, class: at === active ? "row active" : "row", "aria-rowindex": at + 2,
      "aria-selected": at === active ? "true" : "false", "--at": String(at), onclick: () => open(rows[at]),
    }, columns.map((column) => element("div", { role: "gridcell", class: column.numeric ? "numeric" : null }, column.cell(rows[at]))));

    const draw = (again = false) => {
      const from = Math.max(0, Math.floor(grid.scrollTop / ROW) - SPARE);
      const to = Math.min(rows.length, Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + SPARE);
      if (!again && from === first && to === last) return;
      [first, last] = [from, to];
      body.replaceChildren(...Array.from({ length: to - from }, (_, i) => row(from + i)));
      const seen = active >= from && active < to;
      if (seen) grid.setAttribute("aria-activedescendant", `row-${active}`);
      else grid.removeAttribute("aria-activedescendant");
    };

    const move = (to) => {
      active = Math.max(0, Math.min(rows.length - 1, to));
      const top = active * ROW;
      const room = grid.clientHeight - head.offsetHeight - ROW;
      if (top < grid.scrollTop) grid.scrollTop = top;
      else if (top > grid.scrollTop + room) grid.scrollTop = top - room;
      draw(true);
    };

    const page = () => Math.max(1, Math.floor(grid.clientHeight / ROW) - 2);
    const keys = {
      ArrowDown: () => move(active + 1), ArrowUp: () => move(active - 1), PageDown: () => move(active + page()), PageUp: () => move(active - page()),
      Home: () => move(0), End: () => move(rows.length - 1), Enter: () => rows.length && open(rows[active]),
    };
    grid.addEventListener("keydown", (event) => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "BUTTON") return;
      event.preventDefault();
      keys[event.key]();
    });
    grid.addEventListener("scroll", () => draw(), { passive: true });
    // On paper the list is as high as its rows: more rows would make it higher, and so on.
    new ResizeObserver(() => matchMedia("print").matches || draw(true)).observe(grid);

    // Show some latents, sorted by a column.
    const show = (found, name, falling, at = 0) => {
      rows = found;
      active = Math.min(at, Math.max(0, rows.length - 1));
      body.style.height = `${rows.length * ROW}px`;
      grid.setAttribute("aria-rowcount", rows.length + 1);
      heads.forEach((node, i) => {
        if (columns[i].name === name) node.setAttribute("aria-sort", falling ? "descending" : "ascending");
        else node.removeAttribute("aria-sort");
      });
      grid.scrollTop = at ? Math.max(0, active * ROW - grid.clientHeight / 2) : 0;
      draw(true);
    };

    return { show, grid, activeLatent: () => rows[active], place: (latent) => rows.indexOf(latent) };
  };
})();
