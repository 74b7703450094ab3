"use strict";
// The list of an SAE's latents in memory, or of the concepts that its latents tell: typed columns, search and sort over
// all rows. Touches no page.
(() => {
  const bytesOf = (text) => {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  };

  // First bytes of all values, then second bytes, …: back to numbers.
  const integers = (text, count) => {
    const bytes = bytesOf(text);
    const found = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      found[i] = bytes[i] | (bytes[count + i] << 8) | (bytes[2 * count + i] << 16) | (bytes[3 * count + i] << 24);
    }
    return found;
  };

  const half = (bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  };

  const halves = (text, count) => {
    const bytes = bytesOf(text);
    const found = new Float32Array(count);
    for (let i = 0; i < count; i++) found[i] = half(bytes[i] | (bytes[count + i] << 8));
    return found;
  };

  // Words, "words with spaces", name>1, class:partition, family:piece, goal:london
  const termsOf = (query) => [...query.matchAll(/"([^"]*)"?|([\w²]+)\s*([<>]=?|=)\s*(-?[\d.]+(?:e[-+]?\d+)?)|(class|family|set|is|goal):(\S+)|(\S+)/gi)].map(
    ([, quoted, name, sign, number, kind, value, word]) => {
      if (name) return { kind: "number", name: name.toLowerCase(), sign, number: Number(number) };
      if (kind) return { kind: kind.toLowerCase(), value: value.toLowerCase() };
      return { kind: "word", value: (quoted ?? word).toLowerCase() };
    }).filter((term) => term.kind === "number" || term.value);

  const COMPARE = { "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b, "=": (a, b) => Math.abs(a - b) <= 0.001 * Math.abs(b) };

  // Numbers packed to half precision, or as they are, null where they are not known.
  const numbers = (values, count) => (Array.isArray(values) ? Float64Array.from(values, (value) => value ?? NaN) : halves(values, count));
  const LOGARITHMS = ["share", "power"]; // forms that are handed over as their decimal logarithms

  saeflow.latentIndex = (data) => {
    const { count } = data;
    // A search calls a statistic as its heading does, in one word; also by the name of its column in the tables.
    const statistics = data.statistics.map(({ values, ...said }) => ({ ...said, heading: said.label.toLowerCase().replaceAll(" ", "_"), values: numbers(values, count) }));
    const column = Object.fromEntries(statistics.map((one) => [one.name, one]));
    const called = { ...Object.fromEntries(statistics.map((one) => [one.heading, one])), ...column };
    const fires = data.fires && (Array.isArray(data.fires) ? data.fires : integers(data.fires, count));
    const promotes = data.promotes.map((text) => integers(text, count));
    const classes = data.class && (Array.isArray(data.class) ? data.class : integers(data.class, count));
    const numberOf = (i) => (data.numbers ? data.numbers[i] : i); // of the latent of a row
    const sets = data.set && integers(data.set, count);
    const lower = data.words.map((word) => word.toLowerCase());
    const targets = new Map();
    for (const [latent, goal] of data.targeted) targets.set(latent, [...(targets.get(latent) ?? []), goal]);
    const said = new Map(); // labels of latents, from several sources
    for (const [latent, source, text, doubtful] of data.labels ?? []) said.set(latent, [...(said.get(latent) ?? []), { source, text, doubtful, lower: text.toLowerCase() }]);
    const says = (latent, value) => (said.get(latent) ?? []).some(({ lower: text }) => text.includes(value));
    const aims = (latent, value) => (targets.get(latent) ?? []).some((goal) => goal.toLowerCase().replaceAll("_", " ").includes(value.replaceAll("_", " ")));
    const orders = new Map();

    // Places of all latents from the smallest to the largest value; unknown values come last in either direction.
    const order = (name, falling) => {
      const key = `${name} ${falling}`;
      if (orders.has(key)) return orders.get(key);
      const places = new Uint32Array(count).map((_, i) => i);
      if (name === "latent") {
        places.sort((a, b) => (falling ? numberOf(b) - numberOf(a) : numberOf(a) - numberOf(b)) || a - b);
      } else {
        const { values } = column[name];
        const worst = falling ? -Infinity : Infinity;
        const keys = values.map((value) => (Number.isNaN(value) ? worst : value));
        places.sort(falling ? (a, b) => keys[b] - keys[a] || a - b : (a, b) => keys[a] - keys[b] || a - b);
      }
      orders.set(key, places);
      return places;
    };

    const inClass = ({ value }) => {
      const hit = data.classes.map((name) => name.startsWith(value.replaceAll("_", " ")));
      return classes ? (i) => hit[classes[i]] : null;
    };

    const tests = {
      word: ({ value }) => {
        const hit = new Uint8Array(lower.length);
        for (let i = 1; i < lower.length; i++) hit[i] = lower[i].includes(value) ? 1 : 0;
        const columns = fires ? [fires, ...promotes] : promotes;
        const number = /^\d+$/.test(value) ? Number(value) : -1;
        return (i) => numberOf(i) === number || columns.some((one) => hit[one[i]]) || aims(i, value) || says(i, value);
      },
      number: ({ name, sign, number }) => {
        const compare = COMPARE[sign];
        if (name === "latent") return (i) => compare(numberOf(i), number);
        if (!called[name]) return null;
        const { values, form } = called[name];
        if (!LOGARITHMS.includes(form)) return (i) => compare(values[i], number);
        const unknown = form === "share" ? 0 : NaN; // a share without a logarithm is none; nothing is known of another number
        return (i) => compare(Number.isNaN(values[i]) ? unknown : 10 ** values[i], number);
      },
      class: inClass,
      family: inClass,
      set: ({ value }) => {
        const hit = data.sets.map((name) => name !== "" && name.toLowerCase().includes(value));
        return sets ? (i) => hit[sets[i]] : null;
      },
      goal: ({ value }) => (targets.size ? (i) => aims(i, value) : null),
      is: ({ value }) => {
        if (value === "labelled") return (i) => said.has(i);
        if (value === "target") return (i) => targets.has(i);
        if (value === "dead" && column.density) return (i) => Number.isNaN(column.density.values[i]);
        return null;
      },
    };

    // Latents that meet every term of the query, in order; `unknown` names the terms that mean nothing here.
    const search = (query, sort = "latent", falling = false) => {
      const unknown = [];
      const wanted = [];
      for (const term of termsOf(query)) {
        const test = tests[term.kind](term);
        if (test) wanted.push(test);
        else unknown.push(term.name ?? `${term.kind}:${term.value}`);
      }
      const places = order(column[sort] ? sort : "latent", falling);
      return { unknown, places: wanted.length ? places.filter((i) => wanted.every((test) => test(i))) : places };
    };

    const valueOf = (name, latent) => {
      const { values, form } = column[name];
      return LOGARITHMS.includes(form) ? 10 ** values[latent] : values[latent];
    };

    // The label that a latent goes by: the first that is to be believed, else the first of all; as elements, nothing where it has none.
    const named = (latent) => {
      const labels = said.get(latent) ?? [];
      const shown = labels.find(({ doubtful }) => !doubtful) ?? labels[0];
      return shown ? [shown.text, shown.doubtful ? " (doubtful)" : ""] : [];
    };

    // What a latent is known by, as elements: its label, else the token it fires on where that is mostly one, else those it promotes.
    const label = (latent) => {
      if (latent >= count) return [];
      if (said.has(latent)) return named(latent);
      const pure = !promotes.length || (column.top_token_share?.values[latent] ?? 0) >= 0.5;
      if (fires?.[latent] && pure) return [saeflow.token(data.words[fires[latent]])];
      return promotes.slice(0, 2).filter((one) => one[latent]).flatMap((one) => [saeflow.token(data.words[one[latent]]), " "]);
    };

    return {
      sae: data.sae, count, neuronpedia: data.neuronpedia, headings: data.headings ?? {}, statistics, targets, search, valueOf, numberOf, label, named,
      classOf: (latent) => (classes ? data.classes[classes[latent]] : null),
      setOf: (latent) => (sets && sets[latent] ? data.sets[sets[latent]] : null),
      labelsOf: (latent) => said.get(latent) ?? [],
      firesOn: (latent) => (fires && fires[latent] ? data.words[fires[latent]] : null),
      promoted: (latent) => promotes.filter((one) => one[latent]).map((one) => data.words[one[latent]]),
      has: { fires: Boolean(fires), promotes: promotes.length > 0, classes: Boolean(classes), sets: Boolean(sets), targets: targets.size > 0, labels: said.size > 0 },
    };
  };

  // One index per SAE, however many parts of a page ask for it.
  const indices = new Map();
  saeflow.indexOf = (sae) => {
    if (!indices.has(sae)) indices.set(sae, saeflow.load(`latents-${sae}`).then(saeflow.latentIndex));
    return indices.get(sae);
  };
})();
