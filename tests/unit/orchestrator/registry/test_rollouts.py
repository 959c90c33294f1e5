"""Every change of who serves is one conditional write, and MLflow's aliases follow it."""

from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException

from orchestrator.errors import RegistryError
from orchestrator.registry.gate import GateDecision
from orchestrator.registry.rollouts import Rollouts
from orchestrator.registry.session import RegistryDown
from orchestrator.registry.versions import Promotion, Trials, VersionInfo
from orchestrator.store.documents.catalog import Canary
from orchestrator.store.documents.rollout import LATE_WRITE_S
from tests.unit.orchestrator.registry.factory import Stopped, World, make_bolts, stop_at


@pytest.fixture
def world() -> World:
    """Three versions of bolts, the second of which serves in place of the first."""
    return make_bolts()


CHANGES: dict[str, Callable[[Rollouts], object]] = {
    "promote": lambda rollouts: rollouts.promote("bolts", 3),
    "rollback": lambda rollouts: rollouts.rollback("bolts"),
    "canary": lambda rollouts: rollouts.start_canary("bolts", 3, 0.1),
    "shadow": lambda rollouts: rollouts.start_shadow("bolts", 3),
    "retire": lambda rollouts: rollouts.retire("bolts"),
}


AFTER = {
    "promote": {"champion": 3, "previous": 2},
    "rollback": {"champion": 1, "previous": 2},
    "canary": {"champion": 2, "previous": 1, "canary": 3},
    "shadow": {"champion": 2, "previous": 1, "shadow": 3},
    "retire": {"retired": 2, "previous": 1},
}


def test_a_promotion_moves_the_champion_and_mlflow_follows(world: World) -> None:
    assert world.rollouts().promote("bolts", 3) == Promotion(task="bolts", from_version=2, to_version=3)
    assert world.aliases() == AFTER["promote"]
    rollout, _ = world.store.read_rollout("bolts")
    assert rollout.aliases.versions == AFTER["promote"]
    assert rollout.is_mirrored
    assert (rollout.generation, rollout.change.kind, rollout.change.by) == (3, "promote", "anna")


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_that_was_ended_at_any_call_is_completed_by_repeating_it(name: str, when: str) -> None:
    for number in range(40):
        world = World()
        for version in (1, 2, 3):
            world.add(number=version)
        world.rollouts().promote("bolts", 1)
        world.rollouts().promote("bolts", 2)
        setattr(world.mlflow, when, stop_at(number))
        try:
            CHANGES[name](world.rollouts())
            ended = False
        except Stopped:
            ended = True
        setattr(world.mlflow, when, lambda _: None)
        CHANGES[name](world.rollouts()) if ended else None
        assert world.aliases() == AFTER[name], f"ended at call {number}"
        assert world.store.read_rollout("bolts")[0].aliases.versions == AFTER[name]
        if not ended:
            assert number > 2, "no call was ended"
            return
    raise AssertionError("a change makes no end of calls")


def test_a_rollback_needs_no_mlflow_and_is_not_undone_by_repeating_it(world: World) -> None:
    def down(_: str) -> None:
        raise MlflowException("did not answer")

    world.mlflow.before = down
    back = Promotion(task="bolts", from_version=2, to_version=1)
    assert world.rollouts().rollback("bolts") == back
    assert world.rollouts().rollback("bolts").to_version == 1, "it was not completed yet"
    world.mlflow.before = lambda _: None
    world.rollouts().settle("bolts")
    assert world.aliases() == AFTER["rollback"]
    assert world.rollouts().rollback("bolts").to_version == 2, "a second one undoes the first"


def test_a_rollback_whose_mirror_fails_halfway_is_whole_in_the_store(world: World) -> None:
    writes = iter(range(100))

    def fail_second(name: str) -> None:
        if name == "set_registered_model_alias" and next(writes) == 1:
            raise MlflowException("time-out")

    world.mlflow.before = fail_second
    world.rollouts().rollback("bolts")
    assert world.store.read_rollout("bolts")[0].aliases.versions == AFTER["rollback"]
    world.mlflow.before = lambda _: None
    world.rollouts().rollback("bolts")
    assert world.aliases() == AFTER["rollback"]


def test_a_canary_that_half_starts_raises_nobody_elses_share(world: World) -> None:
    world.add(number=4)
    world.rollouts().start_canary("bolts", 3, 0.05)
    world.mlflow.after = stop_at(4)
    with pytest.raises(Stopped):
        world.rollouts().start_canary("bolts", 4, 0.9)
    world.mlflow.after = lambda _: None
    trials = world.rollouts().settle("bolts").aliases
    assert (trials.versions["canary"], trials.share) in {(3, 0.05), (4, 0.9)}


def test_trials_end_when_their_version_serves(world: World) -> None:
    rollouts = world.rollouts()
    rollouts.start_canary("bolts", 3, 0.25)
    assert rollouts.start_shadow("bolts", 1) == Trials(canary=Canary(version=3, share=0.25), shadow=1)
    rollouts.promote("bolts", 3)
    assert world.aliases() == {"champion": 3, "previous": 2, "shadow": 1}
    assert "ship.canary_share" not in world.mlflow.models["ship.bolts"].tags
    assert rollouts.stop_shadow("bolts") == Trials(shadow=1)
    assert rollouts.stop_shadow("bolts") == Trials()


def test_a_canary_ended_by_number_ends_no_other(world: World) -> None:
    world.rollouts().start_canary("bolts", 3, 0.5)
    with pytest.raises(RegistryError, match="is version 3, not 1: nothing was changed; `ship canary bolts"):
        world.rollouts().stop_canary("bolts", 1)
    assert world.rollouts().stop_canary("bolts", 3) == Trials(canary=Canary(version=3, share=0.5))
    assert world.rollouts().stop_canary("bolts", 3) == Trials(), "there is none to be ended"


@pytest.mark.parametrize(
    ("version", "words"),
    [(2, "is its champion and answers already"), (9, "no version 9; it has: 3, 2, 1")],
)
def test_what_cannot_be_tried_says_why(world: World, version: int, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        world.rollouts().start_canary("bolts", version, 0.1)
    with pytest.raises(RegistryError, match=words):
        world.rollouts().start_shadow("bolts", version)


def test_a_move_in_mlflows_page_is_taken_in_with_its_author_unknown(world: World) -> None:
    world.move_by_hand("champion", 3)
    rollout = world.rollouts().settle("bolts")
    assert rollout.aliases.versions == {"champion": 3, "previous": 2}
    assert (rollout.change.kind, rollout.change.by) == ("mlflow", "unknown")
    assert "@champion from version 2 to version 3" in rollout.change.reason
    assert world.aliases()["previous"] == 2, "a rollback undoes it"
    world.move_by_hand("champion", 2)
    assert world.rollouts().settle("bolts").version("champion") == 2, "and so does the person at once"


def test_a_mirror_that_is_late_is_no_move_of_a_person(world: World) -> None:
    world.rollouts().promote("bolts", 3)
    world.move_by_hand("champion", 2)
    world.move_by_hand("previous", 1)
    assert world.rollouts().settle("bolts").version("champion") == 3
    assert world.aliases() == AFTER["promote"]
    world.now_s += LATE_WRITE_S
    world.move_by_hand("champion", 2)
    assert world.rollouts().settle("bolts").version("champion") == 2, "nothing is as late as this"


def test_two_people_at_once_both_get_their_way_one_after_the_other(world: World) -> None:
    others = world.rollouts(by="ben")

    def promote_first(name: str) -> None:
        world.mlflow.before = lambda _: None
        others.promote("bolts", 3)

    world.mlflow.before = promote_first
    assert world.rollouts().promote("bolts", 1).from_version in (2, 3)
    assert world.aliases()["champion"] == 1
    assert world.store.read_rollout("bolts")[0].generation == 4


def always(promote: bool) -> Callable[..., GateDecision]:
    return lambda *_: GateDecision(promote=promote, reason="so it is")


def test_the_gate_decides_again_when_a_person_was_faster(world: World) -> None:
    world.add(number=4)
    seen: list[int | None] = []

    def judge(champion: VersionInfo | None, _: str | None) -> GateDecision:
        if not seen:
            world.rollouts(by="ben").promote("bolts", 3)
        seen.append(None if champion is None else champion.version)
        return GateDecision(promote=champion is not None and champion.version == 2, reason="measured")

    decision = world.rollouts().admit("bolts", world.registry.version("bolts", 4), judge)
    assert seen == [2, 3]
    assert not decision.promote
    assert world.aliases() == {"champion": 3, "previous": 2, "challenger": 4}


def test_an_older_publication_overtakes_neither_champion_nor_challenger(world: World) -> None:
    world.rollouts().promote("bolts", 3)
    late = world.add(number=4, published_s=1.0)
    decision = world.rollouts().admit("bolts", world.registry.version("bolts", late), always(True))
    assert not decision.promote
    assert decision.reason.startswith("It was published before today's champion, version 3")
    newer = world.add(number=5)
    world.rollouts().admit("bolts", world.registry.version("bolts", newer), always(False))
    older = world.add(number=6, published_s=2.0)
    world.rollouts().admit("bolts", world.registry.version("bolts", older), always(True))
    assert world.aliases() == {"champion": 3, "previous": 2, "challenger": newer}


def test_an_admission_without_mlflow_is_to_be_repeated(world: World) -> None:
    world.add(number=4)
    candidate = world.registry.version("bolts", 4)

    def fail(name: str) -> None:
        if name.startswith("set_"):
            raise MlflowException("down")

    world.mlflow.before = fail
    with pytest.raises(RegistryDown):
        world.rollouts().admit("bolts", candidate, always(True))
    world.mlflow.before = lambda _: None
    assert world.rollouts().admit("bolts", candidate, always(False)).promote, "it serves already"
    assert world.aliases() == {"champion": 4, "previous": 2}


def test_previous_is_never_the_same_artifact_as_the_champion(world: World) -> None:
    digest = world.registry.version("bolts", 2).digest
    world.mlflow.create_model_version("ship.bolts", source="s3://twice", tags={"ship.digest": digest})
    world.rollouts().promote("bolts", 4)
    rollout = world.store.read_rollout("bolts")[0]
    assert rollout.digest("previous") != rollout.digest("champion")
    assert world.rollouts().rollback("bolts").to_version == 1


def test_a_model_that_was_deleted_and_made_again_starts_anew(world: World) -> None:
    world.mlflow.delete_registered_model("ship.bolts")
    with pytest.raises(RegistryError, match="no task 'bolts'"):
        world.rollouts().promote("bolts", 1)
    world.add(number=7)
    world.rollouts().promote("bolts", 1)
    rollout = world.store.read_rollout("bolts")[0]
    assert rollout.aliases.versions == {"champion": 1}
    assert rollout.digest("champion") == world.fresh_registry().version("bolts", 1).digest


def test_a_task_of_before_there_were_rollouts_keeps_its_aliases() -> None:
    world = World()
    for number in (1, 2, 3):
        world.add(number=number)
    world.move_by_hand("champion", 2)
    world.move_by_hand("previous", 1)
    world.move_by_hand("night-shift", 1)
    assert world.rollouts().rollback("bolts").to_version == 1
    assert world.aliases() == {"champion": 1, "previous": 2, "night-shift": 1}


def test_a_version_that_is_made_twice_stays_once(world: World) -> None:
    world.mlflow.repeats = {"create_model_version"}
    assert world.add(number=4) == 4
    world.mlflow.repeats = set()
    assert [info.version for info in world.fresh_registry().versions("bolts")] == [4, 3, 2, 1]
    assert world.add(number=4) == 4


def since(world: World) -> str:
    return world.mlflow.models["ship.bolts"].tags["ship.champion_since"]


def test_mlflow_tells_when_the_champion_began_to_serve_and_not_when_something_else_changed(
    world: World,
) -> None:
    began_s = world.now_s
    assert since(world) == f"2@{began_s!r}"
    world.now_s += 100.0
    world.rollouts().start_canary("bolts", 3, 0.1)
    world.rollouts().stop_canary("bolts")
    assert since(world) == f"2@{began_s!r}"
    assert world.store.read_rollout("bolts")[0].champion_s == began_s
    world.rollouts().rollback("bolts")
    assert since(world) == f"1@{world.now_s!r}"
    world.now_s += LATE_WRITE_S + 1.0
    world.move_by_hand("champion", 3)
    world.rollouts().settle("bolts")
    assert since(world) == f"3@{world.now_s!r}"


def test_a_time_that_mlflow_did_not_take_is_told_later(world: World) -> None:
    def fail(name: str) -> None:
        raise MlflowException("down")

    world.mlflow.before = fail
    began_s = world.now_s = world.now_s + 10.0
    world.rollouts().rollback("bolts")
    world.mlflow.before = lambda _: None
    world.now_s += 30.0
    world.rollouts().start_shadow("bolts", 3)
    assert since(world) == f"1@{began_s!r}", "the time of the rollback, and not of what came after"


@pytest.mark.parametrize("name", ["share", "self", "moves", "night-shift"])
def test_an_alias_of_any_name_is_taken_in_and_kept(world: World, name: str) -> None:
    world.move_by_hand(name, 3)
    assert world.rollouts().settle("bolts").version(name) == 3
    world.rollouts().rollback("bolts")
    assert world.aliases() == {**AFTER["rollback"], name: 3}
