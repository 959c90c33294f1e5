// Decision rules as ship/decision/rule.py makes them, and their figures as ship/decision/expectation.py counts them.
// The server sends its own figures of each step beside the scores: the page compares both before it shows any.
"use strict";

(function () {
  // Engines round exp() in their last digit as they like; scores differ by far more.
  const ALMOST = 1 - 1e-12;

  function probabilities(logits, temperature) {
    const highest = Math.max(...logits);
    const odds = logits.map((logit) => Math.exp((logit - highest) / temperature));
    const total = odds.reduce((sum, one) => sum + one, 0);
    return odds.map((one) => one / total);
  }

  function topOf(values, allowed) {
    let best = -1;
    values.forEach((value, place) => {
      if (allowed(place) && (best < 0 || value > values[best])) best = place;
    });
    return best;
  }

  function shareBeside(margin, temperature) {
    const odds = Math.exp(margin / temperature);
    return odds / (1 + odds);
  }

  // Probabilities of classes that are as frequent as the rule says; p where it does not, or not of all.
  function natural(rule, labels, logits, p) {
    const known = rule.frequencies ?? null;
    if (known === null || !labels.every((label) => Object.hasOwn(known, label))) return p;
    return probabilities(logits.map((logit, place) => logit / rule.temperature + Math.log(known[labels[place]])), 1);
  }

  // The place of the class whose answer costs least; -1 where a look of a person costs less.
  function weigh(p, q, good, costs) {
    const escape = (1 - q[good]) * costs.escape, reject = q[good] * costs.false_reject;
    if (costs.unsure !== null && costs.unsure < Math.min(escape, reject)) return -1;
    if (escape <= reject || p.length === 1) return good;
    return topOf(p, (place) => place !== good);
  }

  function decide(rule, labels, logits, distance) {
    const p = probabilities(logits, rule.temperature);
    const unsure = (because) => ({ label: null, because: because, p: p });
    if (rule.max_distance !== null && distance !== null && distance > rule.max_distance) return unsure("far");
    const top = topOf(logits, () => true);
    const possible = labels
      .map((label, place) => [label, place])
      .filter(
        ([label, place]) =>
          Object.hasOwn(rule.thresholds, label) &&
          (place === top ||
            shareBeside(logits[place] - logits[top], rule.temperature) >= rule.thresholds[label] * ALMOST)
      );
    if (possible.length > 1) return unsure("several");
    let chosen = possible.length ? possible[0][1] : top;
    if (!possible.length && rule.costs !== null && labels.includes(rule.costs.good)) {
      chosen = weigh(p, natural(rule, labels, logits, p), labels.indexOf(rule.costs.good), rule.costs);
      if (chosen < 0) return unsure("cost");
    }
    if (p[chosen] < rule.min_confidence * ALMOST) return unsure("confidence");
    return { label: labels[chosen], because: null, p: p };
  }

  function decideAll(sweep, rule) {
    return sweep.logits.map((logits, place) =>
      decide(rule, sweep.labels, logits, sweep.distances === null ? null : sweep.distances[place])
    );
  }

  // Counts as [number, of], and the mean cost, of decisions about the pictures of a sweep.
  function figures(sweep, step, decisions) {
    const truth = sweep.truth.map((place) => sweep.labels[place]);
    const count = (test) => decisions.filter((decision, place) => test(decision, truth[place])).length;
    const number = decisions.length, unsure = count((one) => one.label === null);
    const found = {
      accuracy: [count((one, label) => one.label === label), number - unsure],
      unsure: [unsure, number],
      far: [count((one) => one.because === "far"), number],
      false_rejects: null,
      escapes: null,
      recall: {},
      caught: {},
      cost: null,
    };
    for (const label of new Set(truth)) {
      const of = truth.filter((one) => one === label).length;
      const right = count((one, known) => known === label && one.label === label);
      found.recall[label] = [right, of];
      found.caught[label] = [right + count((one, known) => known === label && one.label === null), of];
    }
    if (sweep.good !== null) {
      const good = truth.filter((one) => one === sweep.good).length;
      found.false_rejects = [
        count((one, label) => label === sweep.good && one.label !== null && one.label !== sweep.good), good,
      ];
      found.escapes = [count((one, label) => label !== sweep.good && one.label === sweep.good), number - good];
    }
    if (step.weighed !== null) {
      const costs = step.weighed;
      const total = decisions.reduce((sum, one, place) => {
        if (one.label === null) return sum + (costs.unsure ?? 0);
        if (truth[place] === costs.good) return sum + (one.label !== costs.good ? costs.false_reject : 0);
        return sum + (one.label === costs.good ? costs.escape : 0);
      }, 0);
      found.cost = total / Math.max(1, number);
    }
    return found;
  }

  // Whether two sets of figures are the same; of classes, those that both name.
  function agree(one, other) {
    const same = (a, b) => (a === null || b === null ? a === b : a[0] === b[0] && a[1] === b[1]);
    const names = ["accuracy", "unsure", "far", "false_rejects", "escapes"];
    const byLabel = (name) =>
      Object.keys(other[name]).every((label) => same(one[name][label] ?? [0, 0], other[name][label]));
    const cost = one.cost === null || other.cost === null
      ? one.cost === other.cost
      : Math.abs(one.cost - other.cost) <= 1e-9 * Math.max(1, Math.abs(other.cost));
    return names.every((name) => same(one[name], other[name])) && byLabel("recall") && byLabel("caught") && cost;
  }

  globalThis.shipDecide = { decide, decideAll, figures, agree };
})();
