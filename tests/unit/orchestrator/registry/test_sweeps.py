"""A sweep's steps are the rules that would be stored, with the figures that the rules' own functions give."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.registry.sweeps import Knob, sweep
from orchestrator.registry.thresholds import Thresholds, Wishes
from ship.decision.rule import Costs, DecisionRule
from ship.errors import ConfigError
from tests.unit.orchestrator.registry.factory import NOW_S, World

DECIDE = Path(__file__).parents[4] / "orchestrator" / "console" / "static" / "decide.js"
# Counts all steps as the page's script does, and says which agree with the server's.
COUNT = """
const { readFileSync } = require("node:fs");
require(process.argv[1]);
const { decideAll, figures, agree } = globalThis.shipDecide;
const found = JSON.parse(readFileSync(0)).map((sweep) => [...sweep.steps, sweep.now].map((step) => {
  const own = figures(sweep, step, decideAll(sweep, step.rule));
  const broken = { ...step.figures, unsure: [step.figures.unsure[0] + 1, step.figures.unsure[1]] };
  return [agree(own, step.figures), agree(own, broken)];
}));
console.log(JSON.stringify(found));
"""


def thresholds(world: World) -> Thresholds:
    return Thresholds(world.fresh_registry(), world.store, world.rollouts(), clock=lambda: NOW_S)


def swept(world: World, knob: Knob, own: DecisionRule | None = None) -> dict[str, Any]:
    """A sweep of the first version, with a rule of its own if one is given."""
    found = thresholds(world)
    standing = found.standing("bolts", 1)
    return sweep(found, standing if own is None else replace(standing, own=own), knob)


@pytest.fixture
def world() -> World:
    world = World()
    world.add_tuned(1)
    return world


def rule_of(step: dict[str, Any]) -> DecisionRule:
    costs = step["rule"]["costs"]
    return DecisionRule(**{**step["rule"], "costs": None if costs is None else Costs(**costs)})


def test_a_step_is_the_rule_that_would_be_stored(world: World) -> None:
    found = thresholds(world)
    standing = found.standing("bolts", 1)
    steps = sweep(found, standing, Knob(kind="recall", label="scratch"))["steps"]
    step = next(step for step in steps if step["value"] == 0.97)
    stored = found.choose(standing, Wishes(recalls={"scratch": 0.97})).to_dict()
    assert step["rule"] == {name: stored[name] for name in step["rule"]}
    assert steps[0]["value"] == 0.0
    assert steps[0]["rule"]["recalls"] == {}


def test_the_figures_of_a_step_are_counts_on_the_shown_pictures(world: World) -> None:
    found = swept(world, Knob(kind="recall", label="scratch"))
    held_out = thresholds(world).held_out(thresholds(world).standing("bolts", 1))
    for step in found["steps"]:
        decisions = rule_of(step).decide_all(held_out.labels, held_out.logits_BC, held_out.distances_B)
        figures = step["figures"]
        assert figures["unsure"] == [sum(one.because is not None for one in decisions), 600]
        caught = sum(
            decision.label == "scratch" or decision.because is not None
            for decision, truth in zip(decisions, held_out.labels_B, strict=True)
            if truth == 1
        )
        assert figures["caught"]["scratch"] == [caught, 200]
        assert caught / 200 >= step["value"]
    first, last = found["steps"][0]["figures"], found["steps"][-1]["figures"]
    # Every tenth scratch looks like a dent, and two more pictures are far from all training images.
    assert (first["recall"]["scratch"], first["escapes"][1]) == ([178, 200], 400)
    # What may be a scratch is answered so, good parts, too.
    assert (first["false_rejects"], last["false_rejects"]) == ([20, 200], [199, 200])
    assert found["limit"] is not None
    assert found["limit"].startswith("a recall of 0.99 for 'scratch' cannot be promised with 200")


def test_movers_are_the_pictures_that_are_not_decided_alike_everywhere(world: World) -> None:
    found = swept(world, Knob(kind="confidence"))
    assert found["movers"]
    for place in found["movers"]:
        said = {
            (decision.label, decision.because)
            for step in found["steps"]
            for decision in [
                rule_of(step).decide(found["labels"], found["logits"][place], found["distances"][place])
            ]
        }
        assert len(said) > 1


def test_costs_are_the_rules_own_or_even_ones(world: World) -> None:
    even = swept(world, Knob(kind="confidence"))["now"]
    assert even["weighed"] == {"good": "good", "escape": 1.0, "false_reject": 1.0, "unsure": 0.2}
    assert even["rule"]["costs"] is None
    costs = Costs(good="good", escape=30.0, false_reject=2.0, unsure=0.5)
    found = swept(world, Knob(kind="escape"), DecisionRule(costs=costs))
    assert found["knob"]["value"] == 30.0
    assert [step["value"] for step in found["steps"] if step["value"] in (20.0, 30.0, 50.0)] == [20, 30, 50]
    assert found["steps"][-1]["weighed"]["false_reject"] == 2.0
    assert found["steps"][-1]["weighed"]["unsure"] == 0.5


def test_of_no_good_class_there_are_no_costs_and_no_escapes() -> None:
    world = World()
    world.add_tuned(1, labels=("hexagon", "square"))
    found = swept(world, Knob(kind="recall", label="square"))
    assert found["now"]["figures"]["escapes"] is found["now"]["figures"]["cost"] is found["good"] is None
    with pytest.raises(ConfigError, match="which parts are good"):
        swept(world, Knob(kind="escape"))
    with pytest.raises(ConfigError, match="unknown label 'round'"):
        swept(world, Knob(kind="recall", label="round"))


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's script")
def test_the_pages_script_counts_as_the_server_does(world: World) -> None:
    two = World()
    two.add_tuned(1, labels=("ok", "bad"))
    several = DecisionRule(
        recalls={"scratch": 0.95, "dent": 0.9}, thresholds={"scratch": 0.3, "dent": 0.4}, min_confidence=0.45
    )
    costs = DecisionRule(costs=Costs(good="ok", escape=20.0, unsure=0.3), temperature=2.5, max_distance=1.5)
    rare = DecisionRule(
        costs=Costs(good="good", escape=8.0, unsure=0.3),
        frequencies={"good": 0.9, "scratch": 0.02, "dent": 0.08},
    )
    unnamed = replace(rare, frequencies={"good": 0.9, "scratch": 0.1})
    sweeps = [
        swept(world, Knob(kind="recall", label="scratch")),
        swept(world, Knob(kind="confidence")),
        swept(world, Knob(kind="escape")),
        swept(two, Knob(kind="recall", label="bad")),
        swept(two, Knob(kind="escape"), costs),
        swept(world, Knob(kind="confidence"), several),
        swept(world, Knob(kind="recall", label="good"), several),
        swept(world, Knob(kind="escape"), rare),
        swept(world, Knob(kind="confidence"), unnamed),
    ]
    assert sweeps[-2]["now"]["figures"] != sweeps[-1]["now"]["figures"], "the frequencies matter"
    done = subprocess.run(
        ["node", "-e", COUNT, str(DECIDE)], input=json.dumps(sweeps).encode(), capture_output=True, check=True
    )
    for counted in json.loads(done.stdout):
        assert counted
        assert all(found == [True, False] for found in counted)
