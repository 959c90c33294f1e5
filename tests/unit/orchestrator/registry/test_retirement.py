"""A retired task serves nothing until a person brings it back."""

import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.gate import GateDecision
from orchestrator.registry.versions import Promotion, VersionInfo
from orchestrator.store.documents.rollout import LATE_WRITE_S
from tests.unit.orchestrator.registry.factory import World, make_bolts


@pytest.fixture
def world() -> World:
    """Three versions of bolts, the second of which serves in place of the first."""
    return make_bolts()


def test_a_retired_task_serves_and_tries_nothing_and_a_promotion_brings_it_back(world: World) -> None:
    world.rollouts().start_canary("bolts", 3, 0.1)
    world.rollouts().start_shadow("bolts", 1)
    assert world.rollouts().retire("bolts") == 2
    assert world.aliases() == {"retired": 2, "previous": 1}
    assert world.rollouts().retire("bolts") == 2, "again is no other change"
    rollout, _ = world.store.read_rollout("bolts")
    assert (rollout.change.kind, rollout.change.by, rollout.champion_s) == ("retire", "anna", None)
    for change in (
        lambda: world.rollouts().start_canary("bolts", 3, 0.1),
        lambda: world.rollouts().start_shadow("bolts", 3),
    ):
        with pytest.raises(RegistryError, match="is retired; `ship promote bolts` brings it back"):
            change()
    world.now_s += 50.0
    assert world.rollouts().promote("bolts") == Promotion(task="bolts", from_version=None, to_version=2)
    assert world.aliases() == {"champion": 2, "previous": 1}
    assert world.store.read_rollout("bolts")[0].champion_s == world.now_s


def test_a_rollback_undoes_a_retirement(world: World) -> None:
    world.rollouts().retire("bolts")
    assert world.rollouts().rollback("bolts").to_version == 2
    assert world.aliases() == {"champion": 2, "previous": 1}


def test_another_version_of_a_retired_task_leaves_the_one_before_to_go_back_to(world: World) -> None:
    world.rollouts().retire("bolts")
    world.rollouts().promote("bolts", 3)
    assert world.aliases() == {"champion": 3, "previous": 2}


def test_a_task_that_never_served_cannot_be_retired(world: World) -> None:
    world.add("gears")
    with pytest.raises(RegistryError, match="'gears' has no champion"):
        world.rollouts().retire("gears")
    with pytest.raises(RegistryError, match="no task 'bolt'"):
        world.rollouts().retire("bolt")


def test_the_gate_brings_no_retired_task_back(world: World) -> None:
    world.rollouts().retire("bolts")
    candidate = world.registry.version("bolts", world.add(number=4))
    judged: list[VersionInfo | None] = []

    def judge(champion: VersionInfo | None, _: str | None) -> GateDecision:
        judged.append(champion)
        return GateDecision(promote=True, reason="It is better.")

    decision = world.rollouts().admit("bolts", candidate, judge)
    assert not decision.promote
    assert decision.reason == (
        "The task is retired; `ship promote bolts 4` brings it back with this version; It is better."
    )
    assert [info.version for info in judged if info] == [2], "it is compared with what served"
    assert world.aliases() == {"retired": 2, "previous": 1, "challenger": 4}
    assert world.rollouts().promote("bolts").to_version == 2, "not the challenger"


def test_a_champion_that_a_person_sets_in_mlflows_page_ends_a_retirement(world: World) -> None:
    world.rollouts().retire("bolts")
    world.now_s += LATE_WRITE_S + 1.0
    world.move_by_hand("champion", 3)
    rollout = world.rollouts().settle("bolts")
    assert rollout.aliases.versions == {"champion": 3, "previous": 1}
    assert world.aliases() == {"champion": 3, "previous": 1}
