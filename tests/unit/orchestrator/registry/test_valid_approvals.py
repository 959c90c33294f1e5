"""An approval is of what was asked for: the artifact, the champion before it, and what its rule promises."""

import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.gate import GateDecision
from orchestrator.registry.versions import DIGEST_TAG
from orchestrator.store.approvals import Approvals
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.rule import StoredRule
from orchestrator.store.prompt_store import PromptStore
from ship.decision.rule import DecisionRule
from tests.unit.orchestrator.registry.factory import World, make_bolts, make_catalog_writer, served
from tests.unit.orchestrator.store.factory import make_key


@pytest.fixture
def world() -> World:
    """Version 2 of bolts serves, and promotions need an approval."""
    world = make_bolts()
    store = PromptStore(world.objects.client())
    author = Author(by="anna", host="line-pc", user="ops")
    Approvals(store, AuditLog(store)).change_patterns(["bol*"], [], author)
    return world


def set_rule(world: World, version: int, time_s: float) -> None:
    digest = world.registry.version("bolts", version).digest
    assert digest is not None
    stored = StoredRule(
        task="bolts", artifact=digest, rule=DecisionRule(), by="anna", host="line-pc", time_s=time_s
    )
    rule, writer = world.store.rules.write(stored), world.rollouts().writer
    writer.write("bolts", writer.mirror.new_change("threshold"), lambda old, _: old.with_rule(digest, rule))


def test_a_promise_that_was_made_since_is_not_dropped_by_an_approval(world: World) -> None:
    set_rule(world, 2, time_s=1.0)
    candidate = world.registry.version("bolts", 3)
    passed = GateDecision(promote=True, reason="It beats the probe.")
    world.rollouts().admit("bolts", candidate, lambda *_: passed)
    stored = world.store.read_rollout("bolts")
    assert stored is not None
    assert stored[0].pending is not None
    asked_s = stored[0].pending.request.time_s
    set_rule(world, 2, time_s=asked_s + 1.0)
    with pytest.raises(RegistryError, match=r"rule of version 2 .* was set after version 3 had passed"):
        world.requests(by="ben").approve("bolts")
    assert world.aliases()["champion"] == 2
    set_rule(world, 3, time_s=asked_s + 2.0)
    assert world.requests(by="ben").approve("bolts").to_version == 3


def test_an_approval_is_of_the_artifact_and_version_that_was_asked_for(world: World) -> None:
    world.rollouts().promote("bolts", 3)
    tags = world.mlflow.versions["ship.bolts"][3].tags
    asked = tags[DIGEST_TAG]
    for decision in (world.requests(by="ben").approve, world.requests(by="ben").reject):
        with pytest.raises(RegistryError, match=r"that waits is of version 3 by now, not of version 4"):
            decision("bolts", 4)
    tags[DIGEST_TAG] = make_key("another")
    with pytest.raises(RegistryError, match=rf"is void: .* for artifact {asked[:12]}, and MLflow has"):
        world.requests(by="ben").approve("bolts")
    assert world.aliases()["champion"] == 2
    tags[DIGEST_TAG] = asked
    assert world.requests(by="ben").approve("bolts", 3).to_version == 3


@pytest.mark.parametrize("is_seen", [False, True])
def test_a_model_that_is_made_again_brings_no_version_past_an_approval(world: World, is_seen: bool) -> None:
    make_catalog_writer(world).update(looks_at_rollouts=True)
    assert served(world) == {"bolts": 2}
    world.mlflow.delete_registered_model("ship.bolts")
    world.now_s += 1000.0
    if is_seen:
        # A look finds the model gone, and takes the task out of service.
        world.rollouts().drop("bolts")
    for number in (9, 2):
        world.add(number=number)
    world.move_by_hand("champion", 1)
    world.move_by_hand("previous", 2)
    change = make_catalog_writer(world).update(looks_at_rollouts=True)
    assert served(world) == {}, change
    settled = world.rollouts().settle("bolts")
    assert settled.version("champion") is None
    # The artifact that served; a task that was dropped begins anew.
    assert settled.version("previous") == (None if is_seen else 2)
    assert "without @champion" in settled.change.reason
    world.rollouts().promote("bolts", 1)
    assert served(world) == {}
    assert world.requests(by="ben").approve("bolts", 1).to_version == 1
