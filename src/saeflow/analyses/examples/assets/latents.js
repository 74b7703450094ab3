"use strict";
// Which part of the latents' page is shown follows from its address alone:
// #/main?q=london&sort=kurtosis&falling  the list;  #/main/17  one latent. So links, "back" and reloading work.
(() => {
  const { failed } = saeflow;
  const byId = (id) => document.getElementById(id);
  const [view, page, grid] = ["list", "latent", "grid"].map(byId);
  const saes = view.dataset.saes.split(" ");
  let list = null; // of the SAE that is shown
  let index = null;
  let shown = 0; // number of the latest address: an older one that loads late is dropped
  let cameFrom = null;

  const route = () => {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    const [name, latent] = path.split("/");
    const asked = new URLSearchParams(query);
    return {
      sae: saes.includes(name) ? name : saes[0],
      latent: /^\d+$/.test(latent ?? "") ? Number(latent) : null,
      query: asked.get("q") ?? "", sort: asked.get("sort") ?? "latent", falling: asked.has("falling"),
    };
  };

  const listAddress = ({ sae, query, sort, falling }) => {
    const asked = new URLSearchParams();
    if (query) asked.set("q", query);
    if (sort !== "latent") asked.set("sort", sort);
    if (falling) asked.set("falling", "");
    return `#/${sae}${asked.size ? `?${asked}` : ""}`;
  };
  const go = (change) => (location.hash = listAddress({ ...route(), ...change }));
  const stay = (change) => location.replace(listAddress({ ...route(), ...change })); // typing makes no history

  const openSae = async (sae) => {
    if (index?.sae === sae) return;
    index = await saeflow.indexOf(sae);
    list = saeflow.latentList(grid, index, {
      open: (latent) => (location.hash = `#/${sae}/${latent}`),
      sort: (name) => go({ sort: name, falling: route().sort === name ? !route().falling : name !== "latent" }),
    });
    const names = [{ name: "latent", label: "number" }, ...index.statistics];
    byId("sort").replaceChildren(...names.map(({ name, label }) => saeflow.element("option", { value: name }, label)));
    byId("names").replaceChildren(...index.statistics.flatMap(({ heading, explanation }, i) => [i ? ", " : "", saeflow.element("code", { title: explanation }, heading)]));
    byId("which-sae").textContent = sae;
    byId("list-count").textContent = `${index.count.toLocaleString("en-US")} in all.`;
  };

  const showList = (asked) => {
    const { places, unknown } = index.search(asked.query, asked.sort, asked.falling);
    if (document.activeElement !== byId("query")) byId("query").value = asked.query;
    byId("sort").value = asked.sort;
    byId("sae").value = asked.sae;
    byId("order").textContent = asked.falling ? "largest first" : "smallest first";
    const missed = unknown.length ? ` Not known here: ${unknown.join(", ")}.` : "";
    const told = places.length ? `${places.length.toLocaleString("en-US")} of ${index.count.toLocaleString("en-US")} latents.` : "No latent meets this search.";
    byId("found").textContent = told + missed;
    const at = cameFrom === null ? 0 : Math.max(0, places.indexOf(cameFrom));
    list.show(places, asked.sort, asked.falling, at);
    document.title = `Latents · ${document.title.split(" · ").at(-1)}`;
  };

  const show = async () => {
    const mine = ++shown;
    const asked = route();
    try {
      await openSae(asked.sae);
      if (mine !== shown) return;
      const one = asked.latent !== null;
      if (one && asked.latent >= index.count) throw new Error(`${asked.sae} has ${index.count} latents, and none of number ${asked.latent}`);
      if (one) await saeflow.latentPage(page, index, asked.latent);
      if (mine !== shown) return;
      const turned = page.hidden === one;
      view.hidden = one;
      page.hidden = !one;
      if (one) {
        byId("up").href = cameFromList ?? `#/${asked.sae}`;
        cameFrom = asked.latent;
        document.title = `Latent ${asked.latent} · ${document.title.split(" · ").at(-1)}`;
        window.scrollTo(0, 0);
        if (opened) page.querySelector("h1").focus();
      } else {
        cameFromList = location.hash || null;
        showList(asked);
        if (turned && opened) list.grid.focus({ preventScroll: true });
      }
    } catch (error) {
      view.hidden = true;
      page.hidden = false;
      failed(page, error);
    }
    opened = true;
    document.body.dataset.ready = location.hash || "#"; // for those who watch the page from outside
  };
  let cameFromList = null;
  let opened = false;

  byId("sae").replaceChildren(...saes.map((sae) => saeflow.element("option", { value: sae }, sae)));
  byId("sae-choice").hidden = saes.length < 2;
  byId("search").addEventListener("submit", (event) => event.preventDefault());
  byId("query").addEventListener("input", (event) => {
    cameFrom = null;
    stay({ query: event.target.value });
  });
  byId("query").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") list.grid.focus();
  });
  byId("sort").addEventListener("change", (event) => go({ sort: event.target.value, falling: event.target.value !== "latent" }));
  byId("order").addEventListener("click", () => go({ falling: !route().falling }));
  byId("sae").addEventListener("change", (event) => (location.hash = `#/${event.target.value}`));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea") || view.hidden) return;
    event.preventDefault();
    byId("query").focus();
  });
  window.addEventListener("hashchange", show);
  show();
})();
