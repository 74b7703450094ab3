"use strict";
// Small charts as SVG: lines with bands, points, bars. Each is drawn for the width it has and again when that changes,
// is one image to a screen reader with its text alternative, and tells the point nearest to the pointer beside it.
(() => {
  const { element, number, mark } = saeflow;
  const svg = (name, attributes, ...children) => element(`svg:${name}`, attributes, ...children);
  const MARGIN = { left: 52, right: 14, top: 12, bottom: 44 };
  const BAR = 56; // pixels of the bar at the top of the window, which hides what is below it
  // Shapes of methods stand beside their colours in palette.css; each is asked once.
  const shapes = new Map();
  const shapeOf = (name) => {
    if (shapes.has(name)) return shapes.get(name);
    const probe = element("span", { class: `method-${name}`, hidden: "" });
    document.body.append(probe);
    const shape = getComputedStyle(probe).getPropertyValue("--shape").trim() || "o";
    probe.remove();
    shapes.set(name, shape);
    return shape;
  };

  // Round steps that cover a range in about `count` parts.
  const ticks = (low, high, count = 5) => {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) found.push(Number(tick.toPrecision(12)));
    return found;
  };

  const extent = (values, around = 0.04) => {
    const known = values.filter(Number.isFinite);
    if (!known.length) return [0, 1];
    const low = known.reduce((a, b) => Math.min(a, b));
    const high = known.reduce((a, b) => Math.max(a, b));
    const room = (high - low || Math.abs(high) || 1) * around;
    return [low - room, high + room];
  };

  // Shapes as well as colours tell methods apart.
  const marker = (x, y, shape, size, attributes) => {
    const paths = {
      s: `M${x - size},${y - size}h${2 * size}v${2 * size}h${-2 * size}z`,
      d: `M${x},${y - 1.3 * size}l${1.3 * size},${1.3 * size}l${-1.3 * size},${1.3 * size}l${-1.3 * size},${-1.3 * size}z`,
      "^": `M${x},${y - 1.2 * size}l${1.2 * size},${2.2 * size}h${-2.4 * size}z`,
      v: `M${x},${y + 1.2 * size}l${1.2 * size},${-2.2 * size}h${-2.4 * size}z`,
      "<": `M${x - 1.2 * size},${y}l${2.2 * size},${-1.2 * size}v${2.4 * size}z`,
      h: `M${x},${y - 1.2 * size}l${size},${0.6 * size}v${1.2 * size}l${-size},${0.6 * size}l${-size},${-0.6 * size}v${-1.2 * size}z`,
      p: `M${x - size},${y}h${2 * size}M${x},${y - size}v${2 * size}`,
      x: `M${x - size},${y - size}l${2 * size},${2 * size}M${x + size},${y - size}l${-2 * size},${2 * size}`,
    };
    return paths[shape] ? svg("path", { d: paths[shape], ...attributes }) : svg("circle", { cx: x, cy: y, r: size, ...attributes });
  };

  const frame = (width, height, box, xs, ys, labels) => {
    const parts = [];
    for (const tick of ys.ticks) {
      const y = ys.at(tick);
      parts.push(svg("line", { class: "grid-line", x1: box.left, x2: width - box.right, y1: y, y2: y }));
      parts.push(svg("text", { class: "tick", x: box.left - 8, y: y + 4, "text-anchor": "end" }, mark(tick)));
    }
    for (const tick of xs.ticks) {
      parts.push(svg("text", { class: "tick", x: xs.at(tick), y: height - box.bottom + 18, "text-anchor": "middle" }, (labels.nameX ?? mark)(tick)));
    }
    parts.push(svg("line", { class: "axis", x1: box.left, x2: width - box.right, y1: height - box.bottom, y2: height - box.bottom }));
    parts.push(svg("text", { class: "label", x: (box.left + width - box.right) / 2, y: height - 6, "text-anchor": "middle" }, labels.x));
    parts.push(svg("text", { class: "label", transform: `translate(13 ${(box.top + height - box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, labels.y));
    return parts;
  };

  const scale = (domain, from, to, count) => ({
    at: (value) => from + ((value - domain[0]) / (domain[1] - domain[0])) * (to - from),
    ticks: ticks(domain[0], domain[1], count),
  });

  // Draws into a place, now and whenever the place's width changes. `paint(width)` returns the height, the SVG's parts,
  // and the points that can be told: {x, y, text, href}.
  const chart = (place, alt, paint) => {
    const told = element("p", { class: "told", hidden: true });
    // Beside the point and inside of chart and window, whatever is in sight of them.
    const tell = (image, point) => {
      told.hidden = !point;
      if (!point) return;
      told.textContent = point.text;
      const [wide, high] = [image.getBoundingClientRect(), told.getBoundingClientRect()];
      const left = Math.max(0, Math.min(point.x - high.width / 2, wide.width - high.width));
      const above = point.y - high.height - 14;
      told.style.setProperty("--left", `${left}px`);
      told.style.setProperty("--top", `${wide.top + above > BAR ? above : point.y + 16}px`);
    };
    const draw = () => {
      const width = Math.max(260, place.clientWidth);
      const { height, parts, points } = paint(width);
      const image = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": alt }, parts);
      const nearest = (event) => {
        const box = image.getBoundingClientRect();
        const [px, py] = [event.clientX - box.left, event.clientY - box.top];
        let best = null;
        let closest = 40 * 40;
        for (const point of points) {
          const distance = (point.x - px) ** 2 + (point.y - py) ** 2;
          if (distance < closest) [best, closest] = [point, distance];
        }
        return best;
      };
      for (const kind of ["pointermove", "pointerdown"]) {
        image.addEventListener(kind, (event) => {
          const point = nearest(event);
          tell(image, point);
          image.classList.toggle("open", Boolean(point?.href));
        });
      }
      image.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && tell(image, null));
      image.addEventListener("click", (event) => {
        const point = nearest(event);
        if (point?.href) location.href = point.href;
      });
      told.hidden = true;
      place.replaceChildren(image, told);
    };
    let width = 0;
    place.watcher?.disconnect();
    place.watcher = new ResizeObserver(() => {
      if (place.clientWidth === width) return;
      width = place.clientWidth;
      draw();
    });
    place.watcher.observe(place);
    width = place.clientWidth;
    draw();
  };

  const paneOf = (width, height, xDomain, yDomain) => ({
    xs: scale(xDomain, MARGIN.left, width - MARGIN.right, width < 480 ? 4 : 8),
    ys: scale(yDomain, height - MARGIN.bottom, MARGIN.top, 5),
  });

  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

  // series: [{name, colour, shape, points: [{x, y, low, high, ring, text}]}], labels: {x, y, nameX}, alt; nameX says what a mark of the x axis is called; dots are left out of long lines.
  saeflow.lineChart = (place, { series, labels, alt, yDomain }) => chart(place, alt, (width) => {
    const height = Math.min(420, Math.max(260, width * 0.5));
    const all = series.flatMap((one) => one.points);
    const known = (point) => point.y !== null && point.y !== undefined;
    const domain = yDomain ?? extent(all.filter(known).map((point) => point.y));
    const { xs, ys } = paneOf(width, height, extent(all.map((point) => point.x), 0.015), domain);
    const parts = frame(width, height, MARGIN, xs, ys, labels);
    const points = [];
    for (const { name, points: own, colour, shape = shapeOf(name) } of series) {
      const line = own.filter(known);
      const group = svg("g", { class: `series ${colour ?? `method-${name}`}` });
      const place = (value, point) => [xs.at(point.x), ys.at(value)];
      const banded = line.filter((point) => Number.isFinite(point.low) && Number.isFinite(point.high));
      if (banded.length > 1) {
        const edge = [...banded.map((p) => place(p.low, p)), ...banded.map((p) => place(p.high, p)).reverse()];
        group.append(svg("path", { class: "band", d: `${path(edge)}z` }));
      }
      group.append(svg("path", { class: "line", d: path(line.map((point) => place(point.y, point))) }));
      for (const point of line) {
        const [x, y] = place(point.y, point);
        if (line.length <= 40) group.append(marker(x, y, shape, 3.4, { class: `dot shape-${shape}` }));
        if (point.ring) group.append(svg("circle", { class: "ring", cx: x, cy: y, r: 9 }));
        points.push({ x, y, text: point.text });
      }
      parts.push(group);
    }
    return { height, parts, points };
  });

  // points: [{x, y, name, ring, text, href}]; both axes have one scale, and a diagonal where they are equal.
  saeflow.pointChart = (place, { points: given, labels, alt }) => chart(place, alt, (width) => {
    const height = Math.min(460, Math.max(300, width * 0.55));
    const { xs, ys } = paneOf(width, height, extent(given.map((p) => p.x), 0.06), extent(given.map((p) => p.y), 0.08));
    const parts = frame(width, height, MARGIN, xs, ys, labels);
    const [low, high] = [Math.max(xs.ticks[0], ys.ticks[0]), Math.min(xs.ticks.at(-1), ys.ticks.at(-1))];
    if (low < high) parts.push(svg("line", { class: "diagonal", x1: xs.at(low), y1: ys.at(low), x2: xs.at(high), y2: ys.at(high) }));
    const points = given.map((point) => ({ x: xs.at(point.x), y: ys.at(point.y), text: point.text, href: point.href }));
    given.forEach((point, i) => {
      const shape = shapeOf(point.name);
      const group = svg("g", { class: `series method-${point.name}` }, marker(points[i].x, points[i].y, shape, 3.2, { class: `dot shape-${shape}` }));
      if (point.ring) group.append(svg("circle", { class: "ring", cx: points[i].x, cy: points[i].y, r: 8 }));
      parts.push(group);
    });
    return { height, parts, points };
  });

  // Counts in bins of equal width over [low, high].
  saeflow.barChart = (place, { low, high, counts, labels, alt, log = false }) => chart(place, alt, (width) => {
    const height = 180;
    const box = MARGIN;
    const tall = (count) => (log ? Math.log10(1 + count) : count);
    const most = Math.max(...counts.map(tall), 1e-9);
    const xs = scale([low, high], box.left, width - box.right, width < 480 ? 4 : 6);
    const ys = { ...scale([0, most], height - box.bottom, box.top, 3) };
    const shown = log
      ? { at: (count) => ys.at(tall(count)), ticks: [0, ...[1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].filter((count) => tall(count) <= most)].filter((_, i, all) => all.length < 6 || i % 2 === 0) }
      : ys;
    const parts = frame(width, height, box, xs, shown, labels);
    const wide = (xs.at(high) - xs.at(low)) / counts.length;
    const points = [];
    counts.forEach((count, i) => {
      const x = xs.at(low) + i * wide;
      const y = ys.at(tall(count));
      if (count) parts.push(svg("rect", { class: "bar-mark", x: x + 0.4, y, width: Math.max(0.6, wide - 0.8), height: height - box.bottom - y }));
      const [from, to] = [low + ((high - low) * i) / counts.length, low + ((high - low) * (i + 1)) / counts.length];
      points.push({ x: x + wide / 2, y, text: `${count.toLocaleString("en-US")} from ${number(from)} to ${number(to)}` });
    });
    if (low < 0 && high > 0) parts.push(svg("line", { class: "diagonal", x1: xs.at(0), x2: xs.at(0), y1: box.top, y2: height - box.bottom }));
    return { height, parts, points };
  });
})();
