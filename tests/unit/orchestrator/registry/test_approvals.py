"""A promotion that needs an approval waits for a second person; what a gate refused takes force."""

from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException

from orchestrator.errors import ManifestError, RegistryError
from orchestrator.registry.gate import GateDecision, decide
from orchestrator.registry.measurement import Measurement
from orchestrator.registry.versions import Promotion
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.approvals import ApprovalRules
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.rollout import Rollout
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import World

ANNA = Author(by="anna", host="line-pc", user="ops")


@pytest.fixture
def world() -> World:
    """Four versions of bolts, the second of which serves; from now on its promotions need an approval."""
    world = World()
    for number in (1, 2, 3, 4):
        world.add(number=number)
    world.rollouts().promote("bolts", 1)
    world.rollouts().promote("bolts", 2)
    approvals(world).change_patterns(["bol*"], [], ANNA)
    return world


def approvals(world: World) -> Approvals:
    store = PromptStore(world.objects.client())
    return Approvals(store, AuditLog(store))


def champion(world: World) -> int | None:
    stored = world.store.read_rollout("bolts")
    assert stored is not None
    return stored[0].version("champion")


def actions(world: World) -> list[str]:
    return [entry.record.action for entry in AuditLog(world.store).newest()]


def test_a_promotion_waits_until_another_person_approves(world: World) -> None:
    waits = world.rollouts().promote("bolts", 3)
    assert waits == Promotion(task="bolts", from_version=2, to_version=3, waits=True)
    assert (champion(world), world.aliases()["champion"]) == (2, 2)
    [rollout] = world.requests().pending(["bolts", "nuts"]).values()
    assert (rollout.pending.version, rollout.pending.champion, rollout.pending.request.by) == (3, 2, "anna")
    with pytest.raises(RegistryError, match=r"anna asked to promote version 3.*another person"):
        world.requests(by="Anna").approve("bolts")
    assert champion(world) == 2
    assert world.requests(by="ben").approve("bolts") == Promotion(task="bolts", from_version=2, to_version=3)
    assert world.aliases() == {"champion": 3, "previous": 2}
    assert world.requests().pending(["bolts"]) == {}
    assert actions(world)[:2] == ["approve", "request"]
    assert verify(world.store).breaks == ()


def test_a_request_that_is_repeated_is_the_same_one(world: World) -> None:
    world.rollouts().promote("bolts", 3)
    first = world.store.read_rollout("bolts")[0]
    assert world.rollouts().promote("bolts", 3).waits
    assert world.store.read_rollout("bolts")[0] == first
    assert world.rollouts(by="ben").promote("bolts", 4).waits
    assert world.store.read_rollout("bolts")[0].pending.version == 4, "the last request counts"


def test_a_request_that_was_overtaken_is_void(world: World) -> None:
    world.rollouts().promote("bolts", 3)
    world.rollouts(by="carl").rollback("bolts")
    with pytest.raises(RegistryError, match="is void: it was made when version 2 served, and version 1"):
        world.requests(by="ben").approve("bolts")
    assert champion(world) == 1
    world.rollouts().promote("bolts", 3)
    assert world.requests(by="ben").approve("bolts").to_version == 3


def test_a_request_is_dropped_by_either_person(world: World) -> None:
    for by in ("anna", "ben"):
        world.rollouts().promote("bolts", 3)
        assert world.requests(by=by).reject("bolts").version == 3
        with pytest.raises(RegistryError, match="no promotion of task 'bolts' waits"):
            world.requests(by="ben").approve("bolts")
    assert champion(world) == 2


def test_a_rollback_and_a_promotion_of_the_champion_wait_for_nobody(world: World) -> None:
    assert not world.rollouts().promote("bolts", 2).waits
    assert world.rollouts().rollback("bolts") == Promotion(task="bolts", from_version=2, to_version=1)


def test_a_version_that_passed_the_gate_waits_as_the_challenger(world: World) -> None:
    candidate = world.registry.version("bolts", 3)
    decision = world.rollouts().admit(
        "bolts", candidate, lambda *_: GateDecision(promote=True, reason="It beats the probe.")
    )
    assert (decision.promote, decision.is_refusal) == (False, False)
    assert decision.reason == "It beats the probe. It waits for a second person: `ship approve bolts`."
    assert world.aliases() == {"champion": 2, "previous": 1, "challenger": 3}
    assert world.requests(by="ben").approve("bolts").to_version == 3
    assert world.aliases() == {"champion": 3, "previous": 2}
    assert world.mlflow.versions["ship.bolts"][3].tags["ship.gate"] == "champion"


def test_the_first_version_of_a_task_waits_too(world: World) -> None:
    approvals(world).change_patterns(["nuts"], [], ANNA)
    world.add("nuts", 1)
    passed = GateDecision(promote=True, reason="It beats the probe.")
    world.rollouts().admit("nuts", world.registry.version("nuts", 1), lambda *_: passed)
    assert world.aliases("nuts") == {"challenger": 1}
    assert world.requests(by="ben").approve("nuts").from_version is None
    assert world.aliases("nuts") == {"champion": 1}


@pytest.mark.parametrize("alias", ["champion", "previous"])
def test_mlflows_page_is_no_way_around_an_approval(world: World, alias: str) -> None:
    world.rollouts().promote("bolts", 3)
    world.move_by_hand(alias, 4)
    world.move_by_hand("night-shift", 4)
    rollout = world.rollouts(by="poller").settle("bolts")
    assert rollout.aliases.versions == {"champion": 2, "previous": 1, "night-shift": 4}
    assert world.aliases() == {"champion": 2, "previous": 1, "night-shift": 4}, "it is set right there"
    assert (rollout.pending.version, rollout.pending.request.by) == (3, "anna"), "and nobody asked for it"
    told = next(AuditLog(world.store).newest()).record
    assert (told.action, told.by) == ("mlflow", "unknown")
    assert f"@{alias} from version {2 if alias == 'champion' else 1} to version 4" in told.reason
    assert "set right: ask with `ship promote`" in told.reason
    assert verify(world.store).breaks == ()


def test_a_champion_may_be_taken_out_of_service_in_mlflows_page(world: World) -> None:
    world.now_s += 1000.0
    del world.mlflow.models["ship.bolts"].aliases["champion"]
    assert world.rollouts().settle("bolts").version("champion") is None


def test_the_gate_leaves_a_persons_request_as_it_is(world: World) -> None:
    world.rollouts().promote("bolts", 3)
    passed = GateDecision(promote=True, reason="It beats the probe.")
    decision = world.rollouts().admit("bolts", world.registry.version("bolts", 4), lambda *_: passed)
    assert decision.reason == (
        "It beats the probe. It waits, as anna asked for version 3; `ship promote bolts 4` asks for this one."
    )
    rollout = world.store.read_rollout("bolts")[0]
    assert (rollout.pending.version, rollout.version("challenger")) == (3, 4)


def test_the_gates_last_version_is_the_one_that_waits(world: World) -> None:
    passed = GateDecision(promote=True, reason="It beats the probe.")
    for number in (3, 4):
        for _ in range(2):
            world.rollouts().admit("bolts", world.registry.version("bolts", number), lambda *_: passed)
    assert world.store.read_rollout("bolts")[0].pending.version == 4
    assert actions(world).count("gate") == 2, "a record that is replayed is told once"


def test_tasks_of_no_pattern_need_no_approval(world: World) -> None:
    approvals(world).change_patterns(["nuts"], ["bol*"], ANNA)
    assert not world.rollouts().promote("bolts", 3).waits


def test_a_manifest_asks_for_its_own_tasks_and_the_store_for_its_patterns() -> None:
    rules = ApprovalRules(patterns=("weld-*",)).with_tasks({"bolts": True, "nuts": False})
    assert [rules.requires(task) for task in ("bolts", "nuts", "weld-1")] == [True, False, True]
    again = rules.with_tasks({"bolts": False, "weld-1": False, "caps": True})
    assert [again.requires(task) for task in ("bolts", "caps", "weld-1")] == [False, True, True]
    assert ApprovalRules.from_json(again.to_json()) == again


@pytest.mark.parametrize(
    ("add", "drop", "words"), [(["a b"], [], "--require"), ([], ["weld-*"], "--lift 'weld-\\*': expected")]
)
def test_a_pattern_that_is_none_changes_nothing(
    world: World, add: list[str], drop: list[str], words: str
) -> None:
    with pytest.raises(ManifestError, match=words):
        approvals(world).change_patterns(add, drop, ANNA)
    assert approvals(world).read().patterns == ("bol*",)


def test_a_rollout_with_a_request_reads_back(world: World) -> None:
    world.rollouts().promote("bolts", 3)
    rollout = world.store.read_rollout("bolts")[0]
    assert Rollout.from_json(rollout.to_json(), "rollout") == rollout
    plain = replace(rollout, pending=None, trail=type(rollout.trail)())
    assert b"pending" not in plain.to_json()
    assert b"trail" not in plain.to_json()


def judged(world: World, number: int, **tags: str) -> None:
    world.mlflow.versions["ship.bolts"][number].tags.update(
        {f"ship.{name}": value for name, value in tags.items()}
    )


@pytest.fixture
def refused() -> World:
    """Three versions of bolts: the first serves, and the gate refused the others."""
    world = World()
    for number in (1, 2, 3):
        world.add(number=number)
        judged(world, number, backbone="vit", backbone_fingerprint="a" * 64)
    world.rollouts().promote("bolts", 1)
    judged(world, 2, gate="challenger", gate_reason="It is below the probe.", gate_refused="true")
    judged(world, 3, gate="challenger", gate_reason="It does not reach the task's floors.")
    return world


@pytest.mark.parametrize(("number", "reason"), [(2, "below the probe"), (3, "the task's floors")])
def test_a_version_that_the_gate_refused_takes_force(refused: World, number: int, reason: str) -> None:
    with pytest.raises(RegistryError, match=f"the gate refused version {number}.*{reason}") as error:
        refused.rollouts().promote("bolts", number)
    assert f"`ship promote bolts {number} --force --reason TEXT`" in str(error.value)
    with pytest.raises(RegistryError, match=f"{reason}.*`ship canary bolts {number} SHARE% --force"):
        refused.rollouts().start_canary("bolts", number, 0.1)
    assert champion(refused) == 1
    assert refused.rollouts().start_shadow("bolts", number).shadow == number, "no client gets its answers"
    refused.rollouts().start_canary("bolts", number, 0.1, force=True)
    refused.rollouts().start_canary("bolts", number, 0.5)
    assert refused.rollouts().promote("bolts", number, force=True).to_version == number
    assert next(AuditLog(refused.store).newest()).record.after["forced"] is True
    assert not refused.rollouts().promote("bolts", number).waits, "it serves already"


def test_a_rollback_to_a_refused_version_takes_no_force(refused: World) -> None:
    refused.rollouts().promote("bolts", 2, force=True)
    refused.rollouts().promote("bolts", 1)
    assert refused.rollouts().rollback("bolts").to_version == 2
    refused.rollouts().rollback("bolts")
    assert refused.rollouts().promote("bolts", 2).to_version == 2, "it is where a rollback goes"


@pytest.mark.parametrize(
    "tags",
    [
        {"gate": "challenger", "gate_reason": "Late.", "gate_refused": "false"},
        {"gate": "challenger", "gate_reason": "Its accuracy is not known, so it cannot be judged."},
        {"gate": "challenger", "gate_reason": "It was published before today's champion, version 1; ..."},
        {"gate": "champion", "gate_reason": "It beats the probe."},
        {},
    ],
)
def test_a_version_that_was_not_refused_takes_no_force(refused: World, tags: dict[str, str]) -> None:
    refused.add(number=4)
    judged(refused, 4, **tags)
    assert refused.rollouts().promote("bolts", 4).to_version == 4


def test_a_version_of_another_backbone_than_the_champions_takes_force(refused: World) -> None:
    for number in (4, 5):
        refused.add(number=number)
    judged(refused, 4, backbone="swin", backbone_fingerprint="b" * 64)
    with pytest.raises(RegistryError, match=r"swin \(bbbbbbbb\).* no champion is: 1 of 1 are of vit"):
        refused.rollouts().promote("bolts", 4)
    assert refused.rollouts().promote("bolts", 5).to_version == 5, "nothing tells its backbone"
    assert refused.rollouts().promote("bolts", 4, force=True).to_version == 4


def test_a_backbone_that_a_champion_is_of_takes_no_force(refused: World) -> None:
    refused.add("nuts", 1)
    refused.mlflow.versions["ship.nuts"][1].tags["ship.backbone_fingerprint"] = "b" * 64
    with pytest.raises(RegistryError, match=r"no champion is.*`ship serve --backbone`"):
        refused.rollouts().promote("nuts", 1)
    refused.add("caps", 1)
    refused.mlflow.versions["ship.caps"][1].tags["ship.backbone_fingerprint"] = "b" * 64
    refused.rollouts().promote("caps", 1, force=True)
    assert refused.rollouts().promote("nuts", 1).to_version == 1, "an endpoint may serve several"


def test_without_mlflow_only_a_version_that_served_is_promoted_without_force(refused: World) -> None:
    refused.rollouts().promote("bolts", 2, force=True)
    refused.rollouts().start_shadow("bolts", 3)

    def down(_: str) -> None:
        raise MlflowException("did not answer")

    refused.mlflow.before = down
    with pytest.raises(RegistryError, match=r"whether the gate refused version 3 .* is not known"):
        refused.rollouts().promote("bolts", 3)
    assert refused.rollouts().promote("bolts", 1).to_version == 1
    assert refused.rollouts().promote("bolts", 3, force=True).to_version == 3


def measurement(accuracy: float | None) -> Measurement:
    metrics = {"probe_accuracy": 0.9, "num_test": 400}
    card = {"metrics": metrics if accuracy is None else {**metrics, "accuracy": accuracy}}
    return Measurement.read({**card, "data_fingerprint": "d"}, {})


@pytest.mark.parametrize(("accuracy", "is_refusal"), [(0.5, True), (0.95, False), (None, False)])
def test_the_gate_tells_a_refusal_from_what_it_cannot_judge(accuracy: float | None, is_refusal: bool) -> None:
    decision = decide(measurement(accuracy), None)
    assert (decision.promote, decision.is_refusal) == (accuracy == 0.95, is_refusal)


@pytest.mark.parametrize("action", ["approve", "reject"])
def test_an_approval_that_was_ended_at_any_call_is_made_once(world: World, action: str) -> None:
    class Killed(BaseException):
        pass

    for number in range(60):
        other = World()
        for version in (1, 2):
            other.add(number=version)
        other.rollouts().promote("bolts", 1)
        approvals(other).change_patterns(["*"], [], ANNA)
        other.rollouts().promote("bolts", 2)
        objects, calls = other.objects.client(), iter(range(10_000))

        def kill(when: str, number: int = number, calls=calls) -> None:
            if when == "after" and next(calls) == number:
                raise Killed

        objects.hook = kill
        by_ben = other.requests(by="ben", store=PromptStore(objects))
        try:
            by_ben.approve("bolts") if action == "approve" else by_ben.reject("bolts")
            ended = False
        except Killed:
            ended = True
        rollout = other.rollouts(by="poller").settle("bolts")
        is_made = rollout.pending is None
        assert actions(other).count(action) == is_made, f"ended at call {number}"
        assert verify(other.store).breaks == ()
        assert (rollout.version("champion") == 2) == (is_made and action == "approve")
        if not ended:
            assert number > 3
            return
    raise AssertionError("it makes no end of calls")


def test_a_retired_version_comes_back_without_force_and_a_retirement_is_logged(refused: World) -> None:
    refused.rollouts().promote("bolts", 2, force=True)
    refused.rollouts().retire("bolts")
    assert next(AuditLog(refused.store).newest()).record.action == "retire"
    assert refused.rollouts().promote("bolts").to_version == 2
    assert verify(refused.store).breaks == ()


def test_mlflows_page_brings_no_other_version_back_from_retirement_past_an_approval(world: World) -> None:
    world.rollouts().retire("bolts")
    world.now_s += 1000.0
    world.move_by_hand("retired", 4)
    assert world.rollouts().settle("bolts").version("retired") == 2
    assert world.rollouts().rollback("bolts").to_version == 2
