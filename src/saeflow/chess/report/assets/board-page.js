"use strict";
// The page of one latent of a chess model: positions in which it is active, how strongly, and the pieces that go with it.
// Boards are drawn here, from the pieces that stand in the page once.
(() => {
  const { element, load, number, signed, percent } = saeflow;
  const CHUNK = 64; // latents per file, as written
  const SIZE = 45; // of a square, as its pieces are drawn
  const EDGE = 16;
  const FILES = "abcdefgh";
  const NAMES = { p: "pawn", n: "knight", b: "bishop", r: "rook", q: "queen", k: "king" };
  const svg = (name, attributes, ...children) => element(`svg:${name}`, attributes, ...children);
  const nameOf = (square) => FILES[square % 8] + (1 + Math.floor(square / 8));
  const corner = (square) => ({ x: EDGE + (square % 8) * SIZE, y: EDGE + (7 - Math.floor(square / 8)) * SIZE });
  const middle = (square) => ({ x: corner(square).x + SIZE / 2, y: corner(square).y + SIZE / 2 });

  const section = (title, note, ...children) =>
    element("section", { class: "part" }, element("h2", {}, title), note && element("p", { class: "note" }, note), ...children);

  const table = (caption, headers, rows) => element("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    element("table", { class: "list" },
      element("caption", { class: "hidden" }, caption),
      element("thead", {}, element("tr", {}, headers.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, rows.map(([head, ...cells]) => element("tr", {}, element("th", { scope: "row" }, head), cells.map((cell) => element("td", {}, cell)))))));

  // A board with its letters and digits; what stands on it is given.
  const board = (kind, alt, ...parts) => {
    const squares = Array.from({ length: 64 }, (_, square) => {
      const dark = (square + Math.floor(square / 8)) % 2 === 0;
      return svg("rect", { class: dark ? "dark" : "light", ...corner(square), width: SIZE, height: SIZE });
    });
    const letters = Array.from({ length: 8 }, (_, i) => [
      svg("text", { class: "coordinate", x: EDGE + (i + 0.5) * SIZE, y: EDGE + 8 * SIZE + 12, "text-anchor": "middle" }, FILES[i]),
      svg("text", { class: "coordinate", x: EDGE / 2, y: EDGE + (7.5 - i) * SIZE + 4, "text-anchor": "middle" }, String(i + 1)),
    ]);
    const whole = 8 * SIZE + 2 * EDGE;
    return svg("svg", { class: kind, viewBox: `0 0 ${whole} ${whole}`, role: "img", "aria-label": alt }, squares, letters, ...parts);
  };

  const piece = (side, kind, square, attributes = {}) =>
    svg("use", { href: `#${side}-${kind}`, transform: `translate(${corner(square).x} ${corner(square).y})`, ...attributes });

  // The pieces of a FEN by their squares, a1 = 0.
  const standing = (fen) => fen.split(" ")[0].split("/").flatMap((rank, down) => {
    let file = 0;
    return [...rank].flatMap((letter) => {
      if (/\d/.test(letter)) {
        file += Number(letter);
        return [];
      }
      const square = (7 - down) * 8 + file++;
      return [{ square, side: letter === letter.toUpperCase() ? "white" : "black", kind: NAMES[letter.toLowerCase()] }];
    });
  });

  const spoken = (pieces) => ["white", "black"].map((side) => {
    const own = ["king", "queen", "rook", "bishop", "knight", "pawn"].flatMap((kind) => {
      const squares = pieces.filter((one) => one.side === side && one.kind === kind).map(({ square }) => nameOf(square));
      return squares.length ? `${kind}${squares.length > 1 ? "s" : ""} ${squares.join(" ")}` : [];
    });
    return `${side === "white" ? "White" : "Black"}: ${own.join(", ")}.`;
  }).join(" ");

  const squareOf = (name) => FILES.indexOf(name[0]) + 8 * (Number(name[1]) - 1);

  const arrow = (move) => {
    const [from, to] = [middle(squareOf(move)), middle(squareOf(move.slice(2)))];
    const long = Math.hypot(to.x - from.x, to.y - from.y);
    const [ux, uy] = [(to.x - from.x) / long, (to.y - from.y) / long];
    const neck = { x: to.x - 17 * ux, y: to.y - 17 * uy };
    const tip = [to, { x: neck.x - 10 * uy, y: neck.y + 10 * ux }, { x: neck.x + 10 * uy, y: neck.y - 10 * ux }];
    return [
      svg("line", { class: "move", x1: from.x, y1: from.y, x2: neck.x, y2: neck.y }),
      svg("polygon", { class: "move-tip", points: tip.map(({ x, y }) => `${x},${y}`).join(" ") }),
    ];
  };

  const position = ([, activation, fen, move, rating], ratings) => {
    const pieces = standing(fen);
    return element("figure", { class: "board" },
      board("position", `White to move. ${spoken(pieces)} Move played: ${move}.`, pieces.map(({ side, kind, square }) => piece(side, kind, square)), arrow(move)),
      element("figcaption", { class: "meta" }, `activation ${number(activation)} · ${move} by a player of ${ratings[rating]}`));
  };

  const positions = (entry, { ratings, strata }) => {
    if (!entry.boards.length) return null;
    const of = (group) => entry.boards.filter(([own]) => own === group);
    const grid = (group) => element("div", { class: "boards four" }, of(group).map((one) => position(one, ratings)));
    const { maximum } = entry.statistics;
    const parts = Array.from({ length: strata }, (_, i) => strata - i).filter((part) => of(`q${part}`).length);
    return section("Positions", "The player to move is White on every board; the arrow is the move that was played.",
      element("h3", {}, "Strongest, one of a game"), grid("top"),
      parts.map((part) => element("details", {},
        element("summary", {}, `Activations from ${number((maximum * (part - 1)) / strata)} to ${number((maximum * part) / strata)} `, element("span", { class: "note" }, `${of(`q${part}`).length} drawn at random`)),
        grid(`q${part}`))));
  };

  const binTable = ({ low, high, counts }) => {
    const edge = (i) => low + ((high - low) * i) / counts.length;
    return element("details", {}, element("summary", {}, "Histogram of activations as a table"),
      table("Histogram of activations", ["from", "to", "count"], counts.map((count, i) => [number(edge(i)), number(edge(i + 1)), count.toLocaleString("en-US")]).filter((_, i) => counts[i])));
  };

  const activations = (entry, draw) => {
    if (!entry.histogram) return null;
    const place = element("div", { class: "chart" });
    draw.push(() => saeflow.barChart(place, {
      ...entry.histogram, log: true, labels: { x: "activation", y: "positions" },
      alt: `Histogram of activations above 0, up to ${number(entry.histogram.high)}.`,
    }));
    return section("How strongly it fires", "Activations above zero; counts on a logarithmic scale.", place, binTable(entry.histogram));
  };

  // Of each square the piece whose presence goes with the latent most: blue where it is active then, orange where it is not.
  const squares = (entry, side, title) => {
    const own = entry.squares.filter(([, name]) => name.startsWith(side));
    const most = Math.max(...entry.squares.map(([, , r]) => Math.abs(r)), 1e-9);
    const parts = own.flatMap(([square, name, r]) => {
      const { x, y } = corner(square);
      const shown = Math.round(100 * r);
      return [
        svg("rect", { class: r > 0 ? "with" : "without", x, y, width: SIZE, height: SIZE, "fill-opacity": (0.85 * Math.abs(r) / most).toFixed(3) }),
        svg("use", { href: `#${side === "my" ? "white" : "black"}-${name.split("_")[1]}`, transform: `translate(${x + SIZE * 0.24} ${y + 1}) scale(0.52)` }),
        svg("text", { class: "hundredths", x: x + SIZE / 2, y: y + SIZE - 5, "text-anchor": "middle" }, shown > 0 ? `+${shown}` : String(shown).replace("-", "−")),
      ];
    });
    const first = own.toSorted((a, b) => Math.abs(b[2]) - Math.abs(a[2])).slice(0, 3).map(([square, name, r]) => `${name.replaceAll("_", " ")} on ${nameOf(square)} ${signed(r, 2)}`);
    return element("figure", { class: "board" }, element("h3", {}, title),
      board("heat squares", `Board of ${title.toLowerCase()}, correlation with the latent of the piece that goes with it most on every square. Largest: ${first.join(", ")}.`, parts));
  };

  const pieces = (entry) => entry.squares.length > 0 && section("Pieces that go with it",
    "On every square the piece whose presence has the largest correlation with the latent, over all positions that were looked at, in hundredths: blue and + where the latent is active with the piece, orange and − where without it. Neighbouring squares go together.",
    element("div", { class: "boards" }, squares(entry, "my", "Pieces of the player"), squares(entry, "their", "Pieces of the opponent")),
    table("Pieces that go with it most", ["piece", "correlation", "mean activation with it", "without it", "positions"],
      entry.leading.map(([name, r, having, lacking, count]) => [name, signed(r, 2), number(having), number(lacking), count.toLocaleString("en-US")])));

  const concepts = (index, entry) => entry.concepts.length > 0 && section("Concepts it was chosen for",
    element("span", {}, "Areas under the ROC curve on held-out games; below 0.5 it is silent with the concept. ", element("a", { href: `concepts-${index.sae}.html` }, `All concepts in ${index.sae}`), "."),
    table("Concepts it was chosen for", ["concept", "fires", "place", "AUC", "interval", "q"],
      entry.concepts.map(([name, direction, rank, auc, low, high, q]) => [
        name, direction > 0 ? "with it" : "without it", String(rank), number(auc, 2),
        low === null ? "too few games" : `[${number(low, 2)}, ${number(high, 2)}]`, q === null ? "–" : number(q, 2),
      ])));

  const facts = (index, entry) => element("dl", { class: "tiles" }, index.statistics.map(({ name, label, told, form }) => {
    const value = entry.statistics[name];
    return value === null || value === undefined ? null : element("div", { title: told }, element("dt", {}, label), element("dd", {}, form === "share" ? percent(value) : number(value)));
  }));

  const heading = (index, latent) => element("div", { class: "opening" },
    element("p", { class: "kind" }, element("a", { href: `#/${index.sae}`, id: "up" }, `Latents of ${index.sae}`)),
    element("h1", { tabindex: -1 }, `Latent ${latent} `, ...index.label(latent)),
    element("nav", { class: "turn", "aria-label": "Other latents" },
      latent > 0 ? element("a", { rel: "prev", href: `#/${index.sae}/${latent - 1}` }, `← ${latent - 1}`) : element("span"),
      latent + 1 < index.count ? element("a", { rel: "next", href: `#/${index.sae}/${latent + 1}` }, `${latent + 1} →`) : element("span")));

  // Fills a place with a latent's page; resolves when it is there.
  saeflow.latentPage = async (place, index, latent) => {
    const file = await load(`latents-${index.sae}/${String(Math.floor(latent / CHUNK)).padStart(5, "0")}`);
    const entry = file.latents[latent - file.first];
    const draw = [];
    const dead = !entry.boards.length && element("p", { class: "headline" }, "This latent never fires in the positions that were looked at.");
    place.replaceChildren(...[heading(index, latent), facts(index, entry), dead, positions(entry, file), activations(entry, draw), pieces(entry), concepts(index, entry)].filter(Boolean));
    for (const chart of draw) chart();
  };
})();
