"use strict";
// What all pages share: loading data, building elements, writing numbers and tokens.
// Text from models enters a page as text nodes only; nothing here or elsewhere parses it as markup.
window.saeflow = {};

(() => {
  const KEPT = 24; // files of data in memory besides those that are asked for by several parts of a page
  const arrivals = new Map();
  const loaded = new Map();

  const unpacked = async (payload) => {
    const binary = atob(payload);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Response(stream).json();
  };

  // Every file of data calls this with its name and its content.
  saeflow.receive = (name, payload) => arrivals.get(name)?.(payload);

  // The content of data/<name>.js. A page from a disk may not fetch it, but may run it as a script.
  saeflow.load = (name) => {
    if (loaded.has(name)) return loaded.get(name);
    const content = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      arrivals.set(name, (payload) => resolve(unpacked(payload)));
      script.onerror = () => reject(new Error(`data/${name}.js is not there`));
      script.onload = () => script.remove();
      script.src = `data/${name}.js`;
      document.head.append(script);
    }).finally(() => arrivals.delete(name));
    loaded.set(name, content);
    if (loaded.size > KEPT) loaded.delete([...loaded.keys()].find((key) => key.includes("/")) ?? name);
    return content;
  };

  // An element with attributes, listeners (on…) and children; children that are strings become text.
  saeflow.element = (name, attributes = {}, ...children) => {
    const node = name.startsWith("svg:")
      ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key.startsWith("--")) node.style.setProperty(key, value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  };

  // Numbers for people: so many digits, thousands apart, a true minus; a dash where there is none.
  saeflow.number = (value, digits = 3) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text =
      Number.isInteger(value) || size >= 999.5 ? Math.round(value).toLocaleString("en-US")
      : size >= 0.001 ? value.toPrecision(digits)
      : value.toExponential(1);
    return text.replace(/-/g, "−");
  };

  // Where an axis is marked: no more digits than tell the marks apart.
  saeflow.mark = (value) =>
    Math.abs(value) >= 10_000 ? value.toLocaleString("en-US", { notation: "compact" }) : String(value).replace("-", "−");

  // A score between 0 and 1.
  saeflow.score = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

  saeflow.signed = (value, digits = 3) => (value > 0 ? "+" : "") + saeflow.number(value, digits);

  saeflow.percent = (share) => {
    if (share === null || share === undefined || Number.isNaN(share)) return "never";
    if (share === 0) return "never";
    return `${(100 * share).toPrecision(share < 0.001 ? 2 : 3)} %`;
  };

  // What cannot be seen in a token, made visible.
  const VISIBLE = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };
  saeflow.visible = (text) => text.replace(/^ | $|[\n\t\r]/g, (one) => VISIBLE[one]);

  saeflow.token = (text) => saeflow.element("span", { class: "token" }, text === "" ? "∅" : saeflow.visible(text));

  saeflow.method = (name) =>
    saeflow.element("span", { class: `method${/^[\w-]+$/.test(name) ? ` method-${name}` : ""}` }, name);

  // A group of choices of which one holds; calls back with the one that is chosen.
  saeflow.choice = (label, name, entries, chosen, change) => {
    const { element } = saeflow;
    const inputs = entries.map(([value, text]) =>
      element("label", {}, element("input", { type: "radio", name, value, checked: value === chosen }), text));
    const set = element("fieldset", { class: "segments" }, element("legend", {}, label), inputs);
    set.addEventListener("change", (event) => change(event.target.value));
    return set;
  };

  // Charts and texts come after the page and make it longer: what its address names stays in view until a reader moves.
  const growth = new ResizeObserver(() => {
    const named = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    for (let fold = named && named.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    if (named) named.scrollIntoView({ behavior: "instant" });
  });
  growth.observe(document.getElementById("main"));
  for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) window.addEventListener(kind, () => growth.disconnect(), { once: true, passive: true });

  // Tells a reader that something is not there, in place of what they wanted to see.
  saeflow.failed = (node, error) => {
    node.replaceChildren(saeflow.element("p", { class: "note", role: "alert" }, `This part cannot be shown: ${error.message}.`));
  };
})();
