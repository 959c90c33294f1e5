// The chart of a task's versions, by uPlot; the table below it has the same numbers.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const place = document.querySelector("#metrics");
  if (!place) return;
  const series = JSON.parse(place.dataset.series);
  if (series.version.length < 2 || !series.accuracy.some((value) => value !== null)) return place.remove();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let chart = null;

  function draw() {
    if (chart) chart.destroy();
    place.textContent = "";
    const line = colour("--line"), text = colour("--text"), link = colour("--link"), faint = colour("--faint");
    const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
    const points = { show: true, size: 7 };
    chart = new uPlot(
      {
        width: Math.max(280, place.clientWidth),
        height: 260,
        legend: { live: false },
        scales: { x: { time: false }, y: { range: (_, low, high) => [Math.max(0, low - 0.05), Math.min(1, high + 0.05)] } },
        axes: [
          { ...axis, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? `v${tick}` : "")) },
          { ...axis, label: "held-out accuracy" },
        ],
        series: [
          {},
          { label: "accuracy", stroke: link, width: 2, points },
          { label: "95% interval, low", stroke: link, width: 1, dash: [2, 4], points: { show: false } },
          { label: "95% interval, high", stroke: link, width: 1, dash: [2, 4], points: { show: false } },
          { label: "linear probe", stroke: faint, width: 1, dash: [6, 4], points },
        ],
      },
      [series.version, series.accuracy, series.accuracy_low, series.accuracy_high, series.probe_accuracy],
      place
    );
  }

  draw();
  let width = place.clientWidth;
  addEventListener("resize", () => {
    if (place.clientWidth !== width) {
      width = place.clientWidth;
      draw();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
});
