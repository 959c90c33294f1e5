"""``ship threshold`` on a store and an MLflow in memory: what it prints, and what it changes."""

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.decisions import threshold
from orchestrator.cli.registry import show
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.thresholds import Thresholds
from orchestrator.store.documents.audit import Author
from ship.decision.rule import Costs, DecisionRule
from tests.unit.orchestrator.cli.factory import WorldOutput
from tests.unit.orchestrator.registry.factory import NOW_S, World


class LineOutput(WorldOutput):
    """The same on a host of the line, at a given time."""

    def thresholds(self, author: Author | None = None) -> Thresholds:
        author = replace(author or Author(by="", host=""), host="line-pc")
        registry, store = self.registry(), self.prompt_store()
        rollouts = Rollouts(registry, store, author, clock=lambda: NOW_S)
        return Thresholds(registry, store, rollouts, clock=lambda: NOW_S)


class Shell:
    """Runs commands on a world of its own, whose first version of bolts serves."""

    def __init__(self) -> None:
        self.world = World()
        self.artifact = self.world.add_tuned(1)
        self.world.add_tuned(2)
        self.world.rollouts().promote("bolts", 1)

    def run(self, *arguments: str) -> Result:
        """Run ``ship threshold``."""
        return CliRunner().invoke(threshold, [*arguments, "--as", "anna"], obj=LineOutput(self.world))

    def show(self, *arguments: str) -> str:
        """What ``ship show`` prints of bolts."""
        result = CliRunner().invoke(show, ["bolts", *arguments], obj=LineOutput(self.world))
        assert result.exit_code == 0, result.output
        return result.output

    def print(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.print(*arguments, "--json"))

    @property
    def rules(self) -> dict[str, str]:
        return dict(self.world.store.read_rollout("bolts")[0].rules)


@pytest.fixture
def shell() -> Shell:
    return Shell()


def test_without_options_it_shows_the_rule_that_serves(shell: Shell) -> None:
    printed = shell.print("bolts")
    assert "bolts: version 1 decides by the rule that came with it." in printed
    assert "temperature of the probabilities 3" in printed
    assert "was not measured" in printed
    assert shell.json("bolts", "--version", "2")["decision"]["temperature"] == 4.0
    assert shell.rules == {}


def test_what_probabilities_and_costs_of_a_balanced_task_are_of_is_told(shell: Shell) -> None:
    found = LineOutput(shell.world).thresholds()
    shares = {"good": 0.95, "scratch": 0.04, "dent": 0.01}
    for costs, number in ((None, 0), (Costs(good="good", escape=9.0), 1)):
        found.set(found.standing("bolts"), DecisionRule(costs=costs, frequencies=shares))
        printed = shell.print("bolts")
        assert printed.count("probabilities are those of equally frequent classes") == 1
        assert (
            printed.count("costs are weighed for classes that are as frequent as in the held-out") == number
        )
    assert shell.json("bolts")["decision"]["frequencies"] == shares


def test_a_recall_is_promised_with_its_figures_before_and_after(shell: Shell) -> None:
    printed = shell.print("bolts", "--recall", "scratch=0.98", "--reason", "audit of May")
    [digest] = shell.rules.values()
    said = f"bolts: version 1 decides by rule {digest[:12]}, set 2027-01-15T08:00:00Z by anna on line-pc"
    assert f"{said}: audit of May, from now on." in printed
    assert "at least 0.98 of scratch is answered with it or unsure, with 95% confidence" in printed
    assert "cross-fitted" in printed
    rule = shell.world.store.rules.read(digest).rule
    caught = rule.expected["caught"]["scratch"]
    assert f"{caught['share']:.3f} ({caught['low']:.3f}-{caught['high']:.3f})" in printed
    again = shell.print("bolts")
    assert said in again
    assert "scratch: with it or unsure" in again


def test_json_has_the_rule_its_origin_and_both_sides_of_a_change(shell: Shell) -> None:
    changed = shell.json("bolts", "--cost", "escape=50, false-reject=2,unsure=0.2", "--recall", "dent=0.9")
    assert (changed["task"], changed["version"], changed["artifact"]) == ("bolts", 1, shell.artifact)
    assert not changed["dry_run"]
    assert changed["before"]["rule"] is None
    after = changed["after"]
    assert after["rule"] == shell.rules[shell.artifact]
    assert after["set"] == {"time": "2027-01-15T08:00:00Z", "by": "anna", "host": "line-pc", "reason": ""}
    costs = {"good": "good", "escape": 50.0, "false_reject": 2.0, "unsure": 0.2}
    assert (after["decision"]["costs"], after["decision"]["recalls"]) == (costs, {"dent": 0.9})
    assert after["decision"]["expected"]["cost"] >= 0.0
    shown = shell.json("bolts")
    assert {name: shown[name] for name in after} == after


@pytest.mark.parametrize("options", [["--recall", "scratch=0.98"], ["--reset"], ["--min-confidence", "0.9"]])
def test_a_dry_run_changes_nothing(shell: Shell, options: list[str]) -> None:
    shell.print("bolts", "--recall", "dent=0.9")
    stored = dict(shell.world.objects.stored)
    assert "would decide by this rule; nothing was changed" in shell.print("bolts", *options, "--dry-run")
    found = shell.json("bolts", *options, "--dry-run")
    assert (found["dry_run"], found["after"]["rule"]) == (True, None)
    assert found["after"]["decision"] is not None
    assert shell.world.objects.stored == stored


def test_a_reset_goes_back_to_the_rule_that_came_with_the_version(shell: Shell) -> None:
    shell.print("bolts", "--recall", "scratch=0.98")
    assert "decides by the rule that came with it, from now on." in shell.print("bolts", "--reset")
    assert shell.rules == {}
    generation = shell.world.store.read_rollout("bolts")[0].generation
    assert "already; nothing was changed" in shell.print("bolts", "--reset")
    assert shell.world.store.read_rollout("bolts")[0].generation == generation


def test_ship_show_names_the_rules_of_versions(shell: Shell) -> None:
    assert "decides by rule" not in shell.show()
    shell.print("bolts", "--version", "2", "--min-confidence", "0.5")
    [digest] = shell.rules.values()
    assert f"v2: decides by rule {digest[:12]}; `ship threshold bolts --version 2` shows it" in shell.show()
    assert [found["rule"] for found in json.loads(shell.show("--json"))["versions"]] == [digest, None]


def test_another_versions_rule_waits_for_its_promotion(shell: Shell) -> None:
    shell.print("bolts", "--version", "2", "--min-confidence", "0.5")
    assert shell.json("bolts")["rule"] is None
    shell.world.rollouts().promote("bolts", 2)
    found = shell.json("bolts")
    assert (found["version"], found["rule"]) == (2, next(iter(shell.rules.values())))
    shell.world.rollouts().rollback("bolts")
    assert shell.json("bolts")["rule"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recall", "scratch"], "expected a label and a share from 0 to below 1"),
        (["--recall", "scratch=1"], "expected a label and a share from 0 to below 1"),
        (["--recall", "=0.9"], "expected a label and a share"),
        (["--recall", "scratch=nan"], "expected a label and a share"),
        (["--recall", "a=0.9", "--recall", "a=0.8"], "'a' is named twice"),
        (["--cost", "escape"], "expected escape, false-reject, unsure"),
        (["--cost", "escape=-1"], "with a cost from 0"),
        (["--cost", "escape=inf"], "with a cost from 0"),
        (["--cost", "escape=1,escape=2"], "each once"),
        (["--cost", "false_reject=1"], "expected escape, false-reject, unsure"),
        (["--cost", ""], "expected escape"),
        (["--min-confidence", "1"], "1"),
        (["--false-alarms", "0"], "0"),
        (["--version", "0"], "0"),
        (["--dry-run"], "give one, such as --recall"),
    ],
)
def test_options_that_make_no_sense_change_nothing(shell: Shell, options: list[str], said: str) -> None:
    result = shell.run("bolts", *options)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
    assert shell.rules == {}


def test_a_label_may_have_an_equals_sign() -> None:
    shell = Shell()
    artifact = shell.world.add_tuned(3, labels=("good", "d>=2"))
    shell.print("bolts", "--version", "3", "--recall", "d>=2=0.9")
    assert shell.world.store.rules.read(shell.rules[artifact]).rule.recalls == {"d>=2": 0.9}
