"use strict";
// A goal's page: its curves, the texts at a scale that the reader slides along, and what methods do to latents.
// The scale stands in the address (#scale=3, or #scale=chosen), so that a text can be sent to somebody and "back" works.
(() => {
  const { element, load, number, score, signed, method, choice, failed } = saeflow;
  const goal = document.querySelector("[data-goal]").dataset.goal;
  const byId = (id) => document.getElementById(id);
  const SHOWN = 3; // texts of a card before "more"

  const scaleName = (data, points, index) => {
    const point = points.find((one) => one.index === index);
    if (!point || point.scale === 0) return "0, unsteered";
    if (point.scale === null) return "none: in words";
    return inUnit(data, point, true);
  };

  // A scale in the study's unit, with the length of what is added where the unit is another.
  const inUnit = (data, point, named = false) => {
    const multiple = data.multiples?.[point.index] ?? null;
    if (multiple === null || point.scale === null) return number(point.scale);
    return `${multiple}${named ? " × mean norm" : ""} (${number(point.scale)})`;
  };
  const placeOf = (data, point) => (data.multiples && point.scale !== null ? data.multiples[point.index] ?? null : point.scale);

  // Curves ------------------------------------------------------------------------------------------------------------
  const curves = (data) => {
    let measure = "product";
    const hidden = new Set();
    const draw = () => {
      const shown = data.methods.filter((name) => !hidden.has(name));
      const scales = Object.values(data.curves).flat().map((point) => placeOf(data, point)).filter(Number.isFinite);
      const ends = [Math.min(...scales), Math.max(...scales)];
      // A method in words has no scale: a level line, and not the unsteered point that it has, too.
      const drawn = (name) => {
        const told = data.curves[name].filter((point) => point.scale === null);
        return told.length ? ends.map((scale) => ({ ...told[0], at: scale, chosen: false })) : data.curves[name];
      };
      const series = shown.map((name) => ({
        name,
        points: drawn(name).map((point) => {
          const [y, low, high] = point[measure];
          const where = point.scale === null ? "in words" : `at scale ${inUnit(data, point)}`;
          return { told: point.scale === null, x: point.at ?? placeOf(data, point), y, low, high, ring: point.chosen, text: `${name} ${where}: ${measure} ${score(y)} [${score(low)}, ${score(high)}]${point.chosen ? ", chosen" : ""}${point.barred ? ", too few scores to be chosen" : ""}` };
        }),
      }));
      const top = Math.min(1, 1.08 * Math.max(0.05, ...series.flatMap((one) => one.points.map((point) => point.high ?? point.y ?? 0))));
      const peaks = series.map(({ name, points }) => {
        const peak = points.reduce((a, b) => ((b.y ?? -1) > (a.y ?? -1) ? b : a), points[0]);
        return peak ? `${name} ${peak.told ? `has ${score(peak.y)} in words` : `reaches ${score(peak.y)} at ${number(peak.x)}`}` : `${name} has none`;
      });
      saeflow.lineChart(byId("curve-chart"), {
        series, yDomain: [0, top], labels: { x: data.multiples ? "scale, multiples of the mean activation norm" : "scale, length of what is added", y: measure },
        alt: `Line chart of ${measure} along the scale. ${peaks.join("; ")}. The table below has all points.`,
      });
    };
    const legend = element("fieldset", { class: "legend" }, element("legend", {}, "Methods"), data.methods.map((name) =>
      element("label", {}, element("input", {
        type: "checkbox", checked: true,
        onchange: (event) => {
          if (event.target.checked) hidden.delete(name);
          else hidden.add(name);
          draw();
        },
      }), method(name))));
    const controls = byId("curve-controls");
    controls.append(choice("Measure", "measure", data.measures.map((name) => [name, name]), measure, (value) => {
      measure = value;
      draw();
    }), legend);
    controls.hidden = false;
    draw();
  };

  // Texts -------------------------------------------------------------------------------------------------------------
  // What tells the words that count for the behaviour from others; null where none does.
  const countedIn = (words) => words.length
    ? new RegExp(`(?<![\\p{L}\\p{M}\\p{N}_])(${[...words].sort((a, b) => b.length - a.length).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})(?![\\p{L}\\p{M}\\p{N}_])`, "gu")
    : null;
  const marked = (text, counted) =>
    (counted ? text.split(counted).map((part, i) => (i % 2 ? element("mark", { class: "counted" }, part) : part)) : [text]);

  const quotation = (counted) => ([prompt, text, behaviour, coherence, reason]) => {
    const body = element("p");
    const opens = text !== null && prompt && text.startsWith(prompt);
    if (opens) body.append(element("span", { class: "prompt" }, prompt));
    body.append(...marked(opens ? text.slice(prompt.length) : text ?? "(no text)", counted));
    const scores = `behaviour ${score(behaviour)} · coherence ${score(coherence)}${reason ? ` (${reason})` : ""}`;
    return element("blockquote", {}, body, element("footer", {}, scores));
  };

  const card = (data, name, heading, points, index, texts) => {
    const point = points.find((one) => one.index === index);
    const node = element("article", { class: "card", id: `text-${name}` }, element("h3", {}, heading));
    if (index === undefined || !point) {
      node.append(element("p", { class: "meta" }, "No scale was chosen: too many scores are missing."));
      return node;
    }
    const [behaviour, coherence] = [point.behaviour[0], point.coherence[0]];
    node.append(element("p", { class: "meta" }, `scale ${scaleName(data, points, index)}${point.chosen ? " · chosen" : ""}`));
    node.append(element("p", { class: "meta" }, `mean behaviour ${score(behaviour)} · coherence ${score(coherence)}`));
    const rows = texts?.[index] ?? [];
    const quoted = rows.map(quotation(data.pattern));
    node.append(...quoted.slice(0, SHOWN));
    if (rows.length > SHOWN) {
      node.append(element("details", {}, element("summary", {}, `${rows.length - SHOWN} more`), quoted.slice(SHOWN)));
    }
    return node;
  };

  const textsOf = (data) => {
    const form = byId("text-controls");
    if (!form) return;
    data.pattern = countedIn(data.counted ?? []);
    const slider = byId("scale");
    const told = byId("scale-told");
    const longest = data.methods.map((name) => data.curves[name]).filter((points) => !points.some((point) => point.scale === null)).reduce((a, b) => (b.length > a.length ? b : a), []);
    slider.max = String(Math.max(0, longest.length - 1));

    const show = (which) => {
      const same = which !== "chosen";
      form.elements.which.value = same ? "same" : "chosen";
      if (same) slider.value = String(which);
      const index = Number(slider.value);
      told.textContent = scaleName(data, longest, index);
      slider.setAttribute("aria-valuetext", told.textContent);
      const shown = data.methods.map((name) => {
        const points = data.curves[name];
        const told = points.find((one) => one.scale === null)?.index;
        return card(data, name, method(name), points, told ?? (same ? index : points.find((one) => one.chosen)?.index), data.texts[name]);
      });
      const first = data.methods[0];
      const unsteered = card(data, "unsteered", "unsteered", data.curves[first] ?? [], 0, data.texts[first]);
      byId("cards").replaceChildren(...(same && index === 0 ? [unsteered] : [unsteered, ...shown]));
    };

    const asked = () => {
      const found = /^#scale=(chosen|\d+)$/.exec(location.hash)?.[1];
      return found === undefined || found === "chosen" ? found : Math.min(Number(found), Number(slider.max));
    };
    slider.addEventListener("input", () => show(Number(slider.value)));
    slider.addEventListener("change", () => (location.hash = `scale=${slider.value}`));
    form.addEventListener("change", (event) => {
      if (event.target.name === "which") location.hash = `scale=${event.target.value === "chosen" ? "chosen" : slider.value}`;
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", () => asked() !== undefined && show(asked()));
    window.addEventListener("popstate", () => location.hash === "" && show("chosen"));
    // The slider begins where most methods have their chosen scale.
    const chosen = data.methods.map((name) => data.curves[name].find((one) => one.chosen && one.scale !== null)?.index ?? 0).sort((a, b) => a - b);
    slider.value = String(chosen[Math.floor(chosen.length / 2)] ?? 0);
    form.hidden = false;
    show(asked() ?? "chosen");
    if (asked() !== undefined) byId("texts").scrollIntoView();
  };

  // Side effects ------------------------------------------------------------------------------------------------------
  const sideEffects = (data) => {
    const place = byId("effect-chart");
    const names = Object.keys(data.effects).filter((name) => data.effects[name].length);
    if (!place || !names.length) return;
    const draw = (chosen) => {
      const shown = chosen === "all" ? names : [chosen];
      const points = shown.flatMap((name) => data.effects[name].map(([latent, target, predicted, measured]) => ({
        name, x: predicted, y: measured, ring: Boolean(target),
        text: `${name}: latent ${latent}${target ? ", a target" : ""}, predicted ${signed(predicted)}, measured ${signed(measured)}`,
        href: data.sae ? `latents.html#/${data.sae}/${latent}` : undefined,
      })));
      const targets = points.filter((point) => point.ring).map((point) => point.text);
      saeflow.pointChart(place, {
        points, labels: { x: "predicted change", y: "measured change" },
        alt: `Scatter chart of predicted and measured changes of ${points.length} latents. ${targets.join(". ")}. The table below has the largest.`,
      });
    };
    const controls = byId("effect-controls");
    controls.append(choice("Method", "effects-of", [["all", "all"], ...names.map((name) => [name, method(name)])], "all", draw));
    controls.hidden = false;
    draw("all");
  };

  // What latents fire on, beside their numbers; the list of latents is large, so it comes last.
  const words = async (data) => {
    const places = [...document.querySelectorAll(".word[data-latent]")];
    if (!data.sae || !places.length) return;
    const latents = await saeflow.indexOf(data.sae);
    for (const place of places) place.append(...latents.label(Number(place.dataset.latent)));
  };

  load(`goal-${goal}`).then((data) => {
    curves(data);
    textsOf(data);
    sideEffects(data);
    return words(data);
  }).catch((error) => failed(byId("curve-chart"), error));
})();
