"""A decision rule is a part of its task's rollout: written whole, kept through promotions and rollbacks."""

import pytest
from mlflow.exceptions import MlflowException

from orchestrator.errors import RegistryError
from orchestrator.registry.thresholds import set_rule
from orchestrator.store.documents.rollout import LATE_WRITE_S
from tests.unit.orchestrator.registry.factory import Stopped, World, make_bolts, stop_at
from tests.unit.orchestrator.store.factory import make_key


@pytest.fixture
def world() -> World:
    """Three versions of bolts, the second of which serves in place of the first."""
    return make_bolts()


def artifact(number: int) -> str:
    return make_key(f"bolts-{number}")


def rules_in_catalog_order(world: World) -> list[str | None]:
    """The rule that champion and previous champion decide by."""
    rollout, _ = world.store.read_rollout("bolts")
    return [rollout.rules.get(rollout.digest(alias)) for alias in ("champion", "previous")]


def test_a_rule_is_one_change_of_the_rollout_and_no_matter_of_mlflow(world: World) -> None:
    calls = len(world.mlflow.calls)
    rollouts = world.rollouts()
    set_rule(rollouts, "bolts", 2, artifact(2), make_key("rule"), instead_of=None)
    rollout, _ = world.store.read_rollout("bolts")
    assert rollout.rules == {artifact(2): make_key("rule")}
    assert (rollout.generation, rollout.change.kind, rollout.change.by) == (3, "threshold", "anna")
    assert rollout.is_mirrored
    assert not [name for name in world.mlflow.calls[calls:] if name.startswith(("set_", "delete_"))]


def test_a_version_takes_its_rule_along_and_a_rollback_restores_it(world: World) -> None:
    set_rule(world.rollouts(), "bolts", 2, artifact(2), make_key("second"), instead_of=None)
    world.rollouts().promote("bolts", 3)
    assert rules_in_catalog_order(world) == [None, make_key("second")]
    set_rule(world.rollouts(), "bolts", 3, artifact(3), make_key("third"), instead_of=None)
    assert rules_in_catalog_order(world) == [make_key("third"), make_key("second")]
    world.rollouts().rollback("bolts")
    assert rules_in_catalog_order(world) == [make_key("second"), make_key("third")]
    # Version 2 has no alias in between.
    world.rollouts().promote("bolts", 1)
    world.rollouts().promote("bolts", 3)
    assert rules_in_catalog_order(world) == [make_key("third"), None]
    world.rollouts().promote("bolts", 2)
    assert rules_in_catalog_order(world) == [make_key("second"), make_key("third")]


def test_a_rule_that_was_chosen_in_place_of_another_one_is_refused(world: World) -> None:
    first, second = make_key("first"), make_key("second")
    set_rule(world.rollouts(), "bolts", 2, artifact(2), first, instead_of=None)
    with pytest.raises(RegistryError, match="version 2 of task 'bolts' was changed meanwhile"):
        set_rule(world.rollouts(), "bolts", 2, artifact(2), second, instead_of=None)
    with pytest.raises(RegistryError, match="was changed meanwhile"):
        set_rule(world.rollouts(), "bolts", 2, artifact(1), second, instead_of=None)
    assert rules_in_catalog_order(world)[0] == first
    set_rule(world.rollouts(), "bolts", 2, artifact(2), second, instead_of=first)
    set_rule(world.rollouts(), "bolts", 2, artifact(2), None, instead_of=second)
    assert world.store.read_rollout("bolts")[0].rules == {}


def test_without_mlflow_a_rule_is_set_all_the_same(world: World) -> None:
    def down(_: str) -> None:
        raise MlflowException("down")

    world.rollouts().settle("bolts")
    world.mlflow.before = down
    set_rule(world.rollouts(), "bolts", 2, artifact(2), make_key("rule"), instead_of=None)
    assert rules_in_catalog_order(world)[0] == make_key("rule")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_rule_that_was_ended_at_any_call_is_there_wholly_or_not_at_all(when: str) -> None:
    for number in range(40):
        world = World()
        world.add(number=1)
        world.rollouts().promote("bolts", 1)
        setattr(world.mlflow, when, stop_at(number))
        try:
            set_rule(world.rollouts(), "bolts", 1, artifact(1), make_key("rule"), instead_of=None)
            ended = False
        except Stopped:
            ended = True
        setattr(world.mlflow, when, lambda _: None)
        rollout, _ = world.store.read_rollout("bolts")
        assert rollout.change.kind == ("threshold" if rollout.rules else "promote")
        if not ended:
            break
    assert not ended
    assert rollout.rules


def test_a_model_that_was_made_again_finds_the_rule_of_its_artifact(world: World) -> None:
    set_rule(world.rollouts(), "bolts", 2, artifact(2), make_key("rule"), instead_of=None)
    world.mlflow.models.pop("ship.bolts")
    world.now_s += 10 * LATE_WRITE_S
    version = world.add(number=2)
    world.rollouts().promote("bolts", version)
    assert rules_in_catalog_order(world)[0] == make_key("rule")
