"use strict";
// The page of one latent: where it fires, what it writes, what it has to do with other latents.
(() => {
  const { element, load, number, signed, percent, token } = saeflow;
  const CHUNK = 64; // latents per file, as written
  const GROUPS = { top: "Strongest" };

  const section = (title, note, ...children) =>
    element("section", { class: "part" }, element("h2", {}, title), note && element("p", { class: "note" }, note), ...children);

  const link = (index, latent) => [element("a", { href: `#/${index.sae}/${latent}` }, String(latent)), " ", ...index.label(latent)];

  // A table with a caption, headers and rows of cells, that may be scrolled where it is wider than its place.
  const table = (caption, headers, rows) => element("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    element("table", { class: "list" },
      element("caption", { class: "hidden" }, caption),
      element("thead", {}, element("tr", {}, headers.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, rows.map(([head, ...cells]) => element("tr", {}, element("th", { scope: "row" }, head), cells.map((cell) => element("td", {}, cell)))))));

  const bar = (value, most) => element("span", { class: value < 0 ? "meter below" : "meter", "--share": `${Math.round((100 * Math.abs(value)) / (most || 1))}%`, "aria-hidden": "true" });

  // Contexts ----------------------------------------------------------------------------------------------------------
  const context = ([, activation, block, position, offset, tokens, steps], { words, gap }, maximum) => {
    const shown = tokens.map((word, i) => {
      const text = words[word];
      const seen = text === "\n" ? "⏎\n" : text;
      if (!steps[i]) return [seen, gap];
      const told = `${saeflow.visible(text)}: ${number((steps[i] / 999) * maximum)}`;
      return [element(i === offset ? "mark" : "span", { class: "on", title: told, "--on": (steps[i] / 999).toFixed(3) }, seen), gap];
    });
    return element("li", {}, element("p", { class: "passage" }, shown),
      element("p", { class: "meta" }, `${number(activation)} at token ${position} of block ${block}`));
  };

  const contexts = (entry, file, maximum) => {
    if (!entry.contexts.length) return null;
    const groups = new Map();
    for (const one of entry.contexts) groups.set(one[0], [...(groups.get(one[0]) ?? []), one]);
    const quantiles = [...groups.keys()].filter((name) => name !== "top").sort((a, b) => Number(b.slice(1)) - Number(a.slice(1)));
    const listed = (name) => element("ol", { class: "passages" }, groups.get(name).map((one) => context(one, file, maximum)));
    const parts = quantiles.length;
    const range = (name) => {
      const part = Number(name.slice(1));
      return `Activations from ${number((maximum * (part - 1)) / parts)} to ${number((maximum * part) / parts)}`;
    };
    return section("Contexts", "The deeper a token's ground, the more the latent fires on it; the token that the context was chosen for is underlined.",
      groups.has("top") && [element("h3", {}, GROUPS.top), listed("top")],
      quantiles.map((name, i) => element("details", { open: i === 0 && !groups.has("top") }, element("summary", {}, `${range(name)} `, element("span", { class: "note" }, `${groups.get(name).length} contexts`)), listed(name))));
  };

  // Logit weights -----------------------------------------------------------------------------------------------------
  const side = (title, pairs) => {
    const most = Math.max(...pairs.map(([, weight]) => Math.abs(weight)), 1e-9);
    return element("div", {}, element("h3", {}, title),
      table(title, ["token", "weight", ""], pairs.map(([word, weight]) => [token(word), signed(weight), bar(weight, most)])));
  };

  const weights = (entry, draw) => {
    if (!entry.tokens.top.length && !entry.weights) return null;
    const place = element("div", { class: "chart" });
    if (entry.weights) draw.push(() => saeflow.barChart(place, {
      ...entry.weights, log: true, labels: { x: "logit weight", y: "tokens" },
      alt: `Histogram of logit weights from ${number(entry.weights.low)} to ${number(entry.weights.high)}, skewness ${number(entry.statistics.skewness)}, excess kurtosis ${number(entry.statistics.kurtosis)}.`,
    }));
    const [causal] = entry.causal;
    return section("What it writes", "Logit weights: the latent's decoder row through the unembedding. Counts on a logarithmic scale.",
      entry.weights && place, entry.weights && binTable("Histogram of logit weights", entry.weights),
      element("div", { class: "pair" }, entry.tokens.top.length && side("Promotes", entry.tokens.top), entry.tokens.bottom.length && side("Suppresses", entry.tokens.bottom)),
      causal && element("p", {}, `Measured in ${causal[0]} contexts: logit weights correlate ${number(causal[1])} with the change when the latent is added, and ${number(causal[2])} when it is removed.`));
  };

  const binTable = (title, { low, high, counts }) => {
    const edge = (i) => low + ((high - low) * i) / counts.length;
    return element("details", {}, element("summary", {}, `${title} as a table`),
      table(title, ["from", "to", "count"], counts.map((count, i) => [number(edge(i)), number(edge(i + 1)), count.toLocaleString("en-US")]).filter((_, i) => counts[i])));
  };

  const activations = (entry, draw) => {
    if (!entry.histogram) return null;
    const place = element("div", { class: "chart" });
    draw.push(() => saeflow.barChart(place, {
      ...entry.histogram, log: true, labels: { x: "activation", y: "tokens" },
      alt: `Histogram of activations above 0, up to ${number(entry.histogram.high)}.`,
    }));
    return section("How strongly it fires", "Activations above zero; counts on a logarithmic scale.", place, binTable("Histogram of activations", entry.histogram));
  };

  // Sets and other latents --------------------------------------------------------------------------------------------
  const sets = (entry) => entry.sets.length && section("Token sets", "Sets whose tokens it promotes (+) or suppresses (−) more than others; controlled over all latents and sets.",
    table("Enriched token sets", ["set", "score", "AUC", "q", "led by"], entry.sets.map(([name, ks, auc, q, leading]) => [
      name, signed(ks), number(auc), q < 1e-99 ? "0" : number(q, 2), leading.slice(0, 6).map((word) => [token(word), " "]),
    ])));

  const pairs = (index, title, pairs, head, form) => {
    if (!pairs.length) return null;
    const most = Math.max(...pairs.map(([, value]) => Math.abs(value)));
    return element("div", {}, element("h3", {}, title),
      table(title, ["latent", head, ""], pairs.map(([latent, value]) => [link(index, latent), form(value), bar(value, most)])));
  };

  const related = (index, entry) => {
    const near = pairs(index, "Closest decoder rows", entry.near, "cosine", number);
    const fires = entry.cofiring.length && element("div", {}, element("h3", {}, "Fires together with"),
      table("Fires together with", ["latent", "tokens", "Jaccard", "correlation"], entry.cofiring.map(([latent, count, jaccard, correlation]) => [link(index, latent), number(count), number(jaccard), number(correlation)])));
    return (near || fires) && section("Neighbours", null, element("div", { class: "pair" }, near, fires));
  };

  const effects = (index, entry) => {
    if (!entry.raised.length && !entry.lowered.length) return null;
    return section("What steering along it does", "Measured change of mean activations in text that the model writes while its decoder row is added.",
      element("div", { class: "pair" }, pairs(index, "Raises", entry.raised, "change", signed), pairs(index, "Lowers", entry.lowered, "change", signed)));
  };

  const facts = (index, latent, entry) => element("dl", { class: "tiles" }, index.statistics.map(({ name, label, explanation, form }) => {
    const value = entry.statistics[name];
    if (value === undefined) return null;
    const set = name === "ks" && index.setOf(latent);
    return element("div", { title: explanation }, element("dt", {}, label),
      element("dd", {}, form === "share" ? percent(value) : number(value), set && element("small", {}, set)));
  }));

  const heading = (index, latent) => {
    const goals = index.targets.get(latent) ?? [];
    const elsewhere = index.neuronpedia && `https://www.neuronpedia.org/${index.neuronpedia.split("/").map(encodeURIComponent).join("/")}/${latent}`;
    const kind = index.classOf(latent);
    return element("div", { class: "opening" },
      element("p", { class: "kind" }, element("a", { href: `#/${index.sae}`, id: "up" }, `Latents of ${index.sae}`)),
      element("h1", { tabindex: -1 }, `Latent ${latent} `, ...index.label(latent)),
      element("p", { class: "chips" },
        kind && kind !== "none" && element("span", { class: "chip" }, kind),
        goals.map((goal) => [element("a", { class: "chip", href: `goal-${goal}.html` }, `target of ${goal.replaceAll("_", " ")}`), " "]),
        elsewhere && element("a", { class: "chip", href: elsewhere, target: "_blank", rel: "noopener noreferrer" }, "Neuronpedia ↗", element("span", { class: "hidden" }, " (opens the network)"))),
      index.labelsOf(latent).length > 0 && element("ul", { class: "note labels", "aria-label": "Labels" }, index.labelsOf(latent).map(({ source, text, doubtful }) =>
        element("li", {}, `${source}: ${text}${doubtful ? " (doubtful)" : ""}`))),
      element("nav", { class: "turn", "aria-label": "Other latents" },
        latent > 0 ? element("a", { rel: "prev", href: `#/${index.sae}/${latent - 1}` }, `← ${latent - 1}`) : element("span"),
        latent + 1 < index.count ? element("a", { rel: "next", href: `#/${index.sae}/${latent + 1}` }, `${latent + 1} →`) : element("span")));
  };

  // Fills a place with a latent's page; resolves when it is there.
  saeflow.latentPage = async (place, index, latent) => {
    const file = await load(`latents-${index.sae}/${String(Math.floor(latent / CHUNK)).padStart(5, "0")}`);
    const entry = file.latents[latent - file.first];
    const maximum = entry.statistics.maximum ?? 0;
    const draw = [];
    const dead = maximum === 0 && !entry.contexts.length && index.has.fires && element("p", { class: "headline" }, "This latent never fires on the cached text.");
    place.replaceChildren(...[heading(index, latent), facts(index, latent, entry), dead, contexts(entry, file, maximum), activations(entry, draw), weights(entry, draw), sets(entry), effects(index, entry), related(index, entry)].filter(Boolean));
    for (const chart of draw) chart();
  };
})();
