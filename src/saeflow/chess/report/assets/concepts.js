"use strict";
// An SAE's concepts: a list that is searched and sorted as that of latents is, and curves along the ratings.
// What the list shows stands in the address (#?q=threat&sort=probe&falling=), so links, "back" and reloading work.
(() => {
  const { element, load, number, choice, failed } = saeflow;
  const byId = (id) => document.getElementById(id);
  const { sae } = byId("concepts").dataset;

  // The list ----------------------------------------------------------------------------------------------------------
  const FIRST = { query: "", sort: "auc", falling: true };
  const route = () => {
    if (!location.hash.startsWith("#?")) return FIRST;
    const asked = new URLSearchParams(location.hash.slice(2));
    return { query: asked.get("q") ?? "", sort: asked.get("sort") ?? FIRST.sort, falling: asked.has("falling") };
  };
  const addressOf = ({ query, sort, falling }) => {
    const asked = new URLSearchParams({ sort });
    if (query) asked.set("q", query);
    if (falling) asked.set("falling", "");
    return `#?${asked}`;
  };
  const go = (change) => (location.hash = addressOf({ ...route(), ...change }));
  const stay = (change) => location.replace(addressOf({ ...route(), ...change })); // typing makes no history

  const listOf = (data) => {
    const index = saeflow.latentIndex(data);
    // What only few games have has no interval, and comes last, however large its area.
    if (index.statistics.some(({ name, values }) => name === "auc_low" && !values.every(Number.isNaN))) FIRST.sort = "auc_low";
    const open = (row) => data.places[row] && byId(`boards-${data.places[row]}`).focus();
    const sort = (name) => go({ sort: name, falling: route().sort === name ? !route().falling : name !== "latent" });
    const columns = [
      {
        name: "concept", label: "concept", width: 13,
        cell: (row) => (data.places[row] ? element("a", { href: `#boards-${data.places[row]}`, tabindex: -1 }, index.firesOn(row)) : index.firesOn(row)),
      },
      { name: "latent", label: "latent", width: 3.5, sorts: true, numeric: true, cell: (row) => (data.pages ? element("a", { href: `latents.html#/${sae}/${index.numberOf(row)}`, tabindex: -1, onclick: (event) => event.stopPropagation() }, String(index.numberOf(row))) : String(index.numberOf(row))) },
      ...saeflow.statisticColumns(index, 4.6),
      { name: "family", label: "family", width: 9, grows: 1, cell: (row) => index.classOf(row) },
    ];
    const list = saeflow.latentList(byId("grid"), index, { open, sort, columns, label: `Concepts in ${sae}` });
    const names = [{ name: "latent", label: "latent" }, ...index.statistics];
    byId("sort").replaceChildren(...names.map(({ name, label }) => element("option", { value: name }, label)));
    byId("names").replaceChildren(...index.statistics.flatMap(({ heading, explanation }, i) => [i ? ", " : "", element("code", { title: explanation }, heading)]));

    const show = () => {
      const asked = route();
      const { places, unknown } = index.search(asked.query, asked.sort, asked.falling);
      if (document.activeElement !== byId("query")) byId("query").value = asked.query;
      byId("sort").value = asked.sort;
      byId("order").textContent = asked.falling ? "largest first" : "smallest first";
      const missed = unknown.length ? ` Not known here: ${unknown.join(", ")}.` : "";
      const told = places.length ? `${places.length.toLocaleString("en-US")} of ${index.count.toLocaleString("en-US")} concepts.` : "No concept meets this search.";
      byId("found").textContent = told + missed;
      list.show(places, asked.sort, asked.falling);
    };
    byId("search").addEventListener("submit", (event) => event.preventDefault());
    byId("query").addEventListener("input", (event) => stay({ query: event.target.value }));
    byId("query").addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") list.grid.focus();
    });
    byId("sort").addEventListener("change", (event) => go({ sort: event.target.value, falling: event.target.value !== "latent" }));
    byId("order").addEventListener("click", () => go({ falling: !route().falling }));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
      event.preventDefault();
      byId("query").focus();
    });
    window.addEventListener("hashchange", () => (location.hash.startsWith("#?") || !location.hash) && show());
    byId("concepts").hidden = false;
    show();
  };

  // Along the ratings -------------------------------------------------------------------------------------------------
  const curvesOf = ({ ratings, groups }) => {
    const place = byId("skill-chart");
    const words = (name) => name.replaceAll("_", " ");
    const key = element("p", { class: "key" });
    const draw = (group) => {
      const series = Object.entries(groups[group]).map(([name, points], i) => ({
        name, colour: `series-${i}`, shape: ["o", "x", "d", "v"][i],
        points: points.map(([rating, y, low, high]) => ({
          x: rating, y, low, high, text: `${words(name)} at ${ratings[rating]}: ${number(y)} [${number(low)}, ${number(high)}]`,
        })),
      }));
      const ends = series.map(({ name, points }) => `${words(name)} from ${number(points[0].y)} to ${number(points.at(-1).y)}`);
      saeflow.lineChart(place, {
        series, yDomain: [0, 1.02], labels: { x: "rating that the model is told, from", y: "share, or AUC", nameX: (bin) => (ratings[bin] ?? "").split("-")[0] },
        alt: `Line chart of ${words(group)} along the ratings. ${ends.join("; ")}. The table below has all points.`,
      });
      key.replaceChildren(...series.map(({ name, colour }) => element("span", { class: `method ${colour}` }, words(name))));
    };
    const names = Object.keys(groups);
    if (!place || !names.length) return;
    const controls = byId("skill-controls");
    controls.append(choice("Group", "skill-group", names.map((name) => [name, words(name)]), names[0], draw), key);
    controls.hidden = false;
    draw(names[0]);
  };

  const listed = byId("grid") ? load(`concepts-${sae}`).then(listOf).catch((error) => {
    byId("concepts").hidden = false;
    failed(byId("grid"), error);
  }) : null;
  const drawn = load(`skill-${sae}`).then(curvesOf).catch((error) => byId("skill-chart") && failed(byId("skill-chart"), error));
  Promise.all([listed, drawn]).then(() => (document.body.dataset.ready = "#")); // for those who watch the page from outside
})();
