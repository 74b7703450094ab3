"use strict";
// Shows sample texts by goal and scale. Model text enters the page as text only, never as markup.
(() => {
  const source = document.getElementById("text-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const byId = (id) => document.getElementById(id);
  const [form, goal, which, slider, told, cards] =
    ["text-controls", "goal", "which", "scale", "scale-told", "cards"].map(byId);

  const element = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
  const current = () => data.goals.find((entry) => entry.goal === goal.value);

  const scaleName = (scales, index) => {
    const { scale } = scales[index];
    if (scale === 0) return "0, unsteered";
    const multiple = data.unit && data.unit.length === scales.length ? ` (${data.unit[index]} × mean activation norm)` : "";
    return `${Number(scale.toPrecision(3))}${multiple}`;
  };

  const quotation = (sample) => {
    const quote = element("blockquote");
    const body = element("p");
    const opens = sample.prompt && sample.text !== null && sample.text.startsWith(sample.prompt);
    if (opens) body.append(element("span", "prompt", sample.prompt));
    body.append(opens ? sample.text.slice(sample.prompt.length) : sample.text ?? "(no text)");
    quote.append(body, element("footer", "", `behaviour ${number(sample.behaviour)} · coherence ${number(sample.coherence)}`));
    return quote;
  };

  const card = (title, colour, scales, index) => {
    const article = element("article", "card");
    const heading = element("h3", "", title);
    if (colour) {
      heading.className = "method";
      heading.style.setProperty("--c", colour);
    }
    article.append(heading);
    if (index < 0) {
      article.append(element("p", "meta", "No scale was chosen: scores are missing."));
      return article;
    }
    const entry = scales[index];
    article.append(element("p", "meta", `scale ${scaleName(scales, index)}${entry.chosen ? " · chosen" : ""}`));
    article.append(element("p", "meta", `mean behaviour ${number(entry.behaviour)} · mean coherence ${number(entry.coherence)}`));
    entry.texts.forEach((sample) => article.append(quotation(sample)));
    return article;
  };

  const indexOf = (scales) => {
    if (which.value === "same") return Math.min(Number(slider.value), scales.length - 1);
    if (which.value === "largest") return scales.length - 1;
    return scales.findIndex((entry) => entry.chosen);
  };

  const show = () => {
    const { methods } = current();
    const longest = methods.reduce((a, b) => (b.scales.length > a.scales.length ? b : a));
    slider.max = String(longest.scales.length - 1);
    slider.closest("label").hidden = which.value !== "same";
    told.textContent = scaleName(longest.scales, Number(slider.value));
    slider.setAttribute("aria-valuetext", told.textContent);
    const shown = methods.map(({ method, scales }) => card(method, data.colours[method], scales, indexOf(scales)));
    cards.replaceChildren(card("unsteered", null, methods[0].scales, 0), ...shown);
  };

  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
