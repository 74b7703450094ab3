"use strict";
// Training curves of all SAEs beside each other.
(() => {
  const { load, number, choice, failed } = saeflow;
  const place = document.getElementById("training-chart");
  if (!place) return;

  const draw = ({ measures, curves }, measure) => {
    const label = measures[measure];
    const series = Object.entries(curves).filter(([, curve]) => curve[measure]).map(([name, curve], i) => ({
      name, colour: `series-${i % 6}`,
      points: curve.tokens.map((tokens, k) => ({ x: tokens, y: curve[measure][k], text: `${name} after ${number(tokens)} activations: ${label} ${number(curve[measure][k])}` })),
    }));
    const ends = series.map(({ name, points }) => `${name} ends at ${number(points.at(-1)?.y)}`);
    saeflow.lineChart(place, { series, labels: { x: "activations seen", y: label }, alt: `Line chart of ${label} while training. ${ends.join("; ")}.` });
    legend(series);
  };

  const key = saeflow.element("p", { class: "key" });
  const legend = (series) => key.replaceChildren(...series.map(({ name, colour }) => saeflow.element("span", { class: `method ${colour}` }, name)));

  load("saes").then((data) => {
    const controls = document.getElementById("training-controls");
    const names = Object.entries(data.measures);
    if (!names.length) return;
    controls.append(choice("Measure", "training-measure", names, names[0][0], (measure) => draw(data, measure)), key);
    controls.hidden = false;
    draw(data, names[0][0]);
  }).catch((error) => failed(place, error));
})();
