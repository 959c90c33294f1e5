// The slider of a decision rule: counts at each step, and pictures that change their list. Without it, the form's
// list of values and its button show the same.
"use strict";

document.addEventListener("DOMContentLoaded", async () => {
  const root = document.querySelector("[data-sweep]");
  if (!root) return;
  const sweep = (await (await fetch(root.dataset.sweep, { headers: { Accept: "application/json" } })).json()).sweep;
  if (!sweep) return;
  const { decideAll, figures, agree } = globalThis.shipDecide;
  const known = new Map();
  const at = (number) => {
    if (!known.has(number)) {
      const step = sweep.steps[number], decisions = decideAll(sweep, step.rule);
      known.set(number, { step, decisions, figures: figures(sweep, step, decisions) });
    }
    return known.get(number);
  };
  const wrong = sweep.steps.filter((step, number) => !agree(at(number).figures, step.figures));
  root.dataset.agrees = String(wrong.length === 0);
  const note = root.querySelector("[data-note]");
  if (wrong.length) {
    note.textContent = "This browser counts otherwise than the server: use the list of values and its button.";
    return;
  }

  const slider = root.querySelector("input[type=range]"), select = root.querySelector("select[name=value]");
  const placeOf = new Map(sweep.places.map((place, number) => [place, number]));
  const shots = new Map([...root.querySelectorAll("[data-place]")].map((shot) => [Number(shot.dataset.place), shot]));
  const lists = new Map([...root.querySelectorAll("[data-outcome]")].map((list) => [list.dataset.outcome, list]));
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const said = (count) =>
    count === null || count === undefined || count[1] === 0
      ? "none held out"
      : `${percent(count[0] / count[1])} (${count[0]} of ${count[1]})`;

  function show(number) {
    const { step, decisions, figures: found } = at(number);
    for (const cell of root.querySelectorAll("[data-figure]")) {
      const [name, label] = [cell.dataset.figure, cell.dataset.label];
      const value = label === undefined ? found[name] : found[name][label];
      cell.textContent = name === "cost" ? (value === null ? "" : Number(value.toPrecision(4)).toString()) : said(value);
    }
    for (const [place, shot] of shots) {
      const decision = decisions[placeOf.get(place)], truth = sweep.labels[sweep.truth[placeOf.get(place)]];
      const outcome = decision.label === null ? "unsure" : decision.label === truth ? "right" : "wrong";
      shot.querySelector("[data-decision]").textContent =
        decision.label === null ? `unsure (${decision.because})` : decision.label;
      if (shot.parentElement !== lists.get(outcome)) lists.get(outcome).append(shot);
    }
    for (const [outcome, list] of lists) {
      root.querySelector(`[data-count="${outcome}"]`).textContent = list.children.length;
    }
    select.selectedIndex = number;
    root.querySelector("[data-value]").textContent = String(step.value);
    slider.setAttribute("aria-valuetext", `${step.value}: ${said(found.unsure)} unsure`);
    for (const field of document.querySelectorAll("[data-step]")) field.value = String(step.value);
  }

  slider.max = String(sweep.steps.length - 1);
  slider.value = String(select.selectedIndex);
  slider.closest("[hidden]").hidden = false;
  slider.addEventListener("input", () => show(Number(slider.value)));
  select.addEventListener("change", () => {
    slider.value = String(select.selectedIndex);
    show(select.selectedIndex);
  });
  show(Number(slider.value));
});
