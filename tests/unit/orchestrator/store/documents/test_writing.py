"""Whatever text a person gives, the documents that hold it can be read again."""

import json

import pytest

from orchestrator.errors import StoreError
from orchestrator.registry.rollouts import Rollouts
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.audit import AuditEntry, Author
from orchestrator.store.documents.drift import Acknowledged, Alarm, DriftEntry, DriftStates
from orchestrator.store.documents.owner import Owner
from orchestrator.store.documents.review import Opinion, Review
from orchestrator.store.documents.rollout import Aliases, Change, Rollout
from orchestrator.store.documents.rule import StoredRule
from orchestrator.store.documents.writing import legible, to_bytes
from orchestrator.store.drift import acknowledge, read_drift, write_drift
from ship.decision.rule import DecisionRule
from tests.unit.orchestrator.registry.factory import World, make_bolts

HALF = "caf\udce9"
LATIN = b"caf\xe9".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("better on line 3", "better on line 3"),
        ("caf\u00e9 \u3000\U0001f529\n\tsecond line", "caf\u00e9 \u3000\U0001f529\n\tsecond line"),
        (LATIN, "caf\ufffd"),
        ("\x1b[2Jgone\x00\x9b", "\ufffd[2Jgone\ufffd\ufffd"),
    ],
)
def test_a_text_keeps_what_can_be_written_and_read(text: str, expected: str) -> None:
    assert legible(text) == expected


@pytest.mark.parametrize("text", ["\ud83d", "\\ud800", "\\\ud800", "\ude00\ud83d", "\U0001f529"])
def test_what_is_written_is_what_was_meant_but_for_halves_of_pairs(text: str) -> None:
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert json.loads(to_bytes(json.dumps({text: [text]}))) == {expected: [expected]}


def test_an_author_is_legible_and_as_long_as_documents_hold() -> None:
    author = Author(by=LATIN, host=LATIN, user="u" * 3000, reason="r" * 3000 + LATIN)
    assert (author.by, author.host, len(author.user), len(author.reason)) == (
        *("caf\ufffd", "caf\ufffd"),
        *(200, 1000),
    )


def test_documents_with_half_a_pair_are_read_again() -> None:
    """Past the author: what comes from elsewhere, such as MLflow's names, is written legibly, too."""
    change = Change(kind="mlflow", by=HALF, host=HALF, time_s=1.0, reason=HALF, change_id="1")
    none = Aliases()
    rollout = Rollout(
        task="bolts", model_ms=1, generation=1, aliases=none, mirrored=none, versions={}, change=change
    )
    assert Rollout.from_json(rollout.to_json(), "rollout").change.reason == "caf\ufffd"
    owner = Owner(registry="0" * 32, where=HALF, since_s=1.0)
    assert Owner.from_json(owner.to_json()).where == "caf\ufffd"
    opinion = Opinion(label=HALF, by=HALF, host=HALF, time_s=1.0)
    review = Review(task="bolts", picture="a" * 64, answered=HALF, opinions=(opinion,))
    assert Review.from_json(review.to_json(), "review").answered == "caf\ufffd"
    rule = StoredRule(
        task="bolts", artifact="a" * 64, rule=DecisionRule(), by=HALF, host=HALF, time_s=1.0, reason=HALF
    )
    assert StoredRule.from_json(rule.to_json(), "rule").reason == "caf\ufffd"
    entry = DriftEntry(digest="a" * 64, rule=None, time_s=1.0, not_watched=HALF)
    assert DriftStates.from_json(DriftStates(tasks={"bolts": entry}).to_json()).tasks["bolts"].not_watched


def test_a_change_with_a_reason_of_another_encoding_is_made_told_and_followed() -> None:
    world = make_bolts()
    author = Author(by=LATIN, host="line-pc", reason=LATIN)
    Rollouts(world.registry, world.store, author, clock=lambda: world.now_s).promote("bolts", 3)
    assert world.store.read_rollout("bolts")[0].change.reason == "caf\ufffd"
    told = next(AuditLog(world.store).newest()).record
    assert (told.action, told.by, told.reason) == ("promote", "caf\ufffd", "caf\ufffd")
    assert verify(world.store).breaks == ()


def test_a_record_told_with_half_a_pair_is_read_again() -> None:
    world = World()
    log = AuditLog(world.store)
    log.append("gc", None, {HALF: HALF}, {}, HALF, Author(by="anna", host="line-pc"))
    assert next(log.newest()).record.before == {"caf\ufffd": "caf\ufffd"}


def test_what_could_not_be_read_again_is_not_written() -> None:
    world = make_bolts()
    rollout, etag = world.store.read_rollout("bolts")
    long = Aliases(versions={**rollout.aliases.versions, "x" * 300: 1})
    before = dict(world.objects.stored)
    with pytest.raises(StoreError, match=r"which is not written: 'aliases/versions/x+': .* at most 256"):
        world.store.write_rollout(Rollout(**{**vars(rollout), "aliases": long}), etag)
    anna = Author(by="anna", host="line-pc")
    with pytest.raises(StoreError, match="which is not written: 'record/action'"):
        AuditLog(world.store).append("Not An Action", None, {}, {}, "", anna)
    assert world.objects.stored == before
    rule = StoredRule(
        task="bolts",
        artifact="a" * 64,
        rule=DecisionRule(),
        by="anna",
        host="h",
        time_s=1.0,
        reason="r" * 2001,
    )
    with pytest.raises(StoreError, match=r"'reason': .* at most 2000"):
        world.store.rules.write(rule)


def test_an_alarm_that_is_acknowledged_at_length_leaves_the_states_readable() -> None:
    world = World()
    alarm = Alarm(time_s=1.0, num_seen=5, signals=("unsure",))
    entry = DriftEntry(digest="a" * 64, rule=None, time_s=1.0, alarm=alarm)
    write_drift(world.objects, DriftStates(tasks={"bolts": entry}), None)
    acknowledge(world.store, "bolts", Author(by="anna", host="line-pc", reason="y" * 2500))
    given = read_drift(world.objects)[0].tasks["bolts"].acknowledged
    assert isinstance(given, Acknowledged)
    assert len(given.reason) == 1000
    told = next(AuditLog(world.store).newest())
    assert isinstance(told, AuditEntry)
    assert told.record.reason == given.reason
