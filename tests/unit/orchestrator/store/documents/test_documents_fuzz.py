"""What others can write into a store, drawn at random: read, and written the same, or refused by name."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.planning.estimates import TuningRun
from orchestrator.store.documents.approvals import ApprovalRules
from orchestrator.store.documents.audit import AuditEntry, AuditRecord, Author, Pin, Trail
from orchestrator.store.documents.catalog import Canary, Catalog, CatalogEntry, IdleTask
from orchestrator.store.documents.owner import Owner
from orchestrator.store.documents.publication import Marker, make_marker
from orchestrator.store.documents.rollout import Aliases, Change, Pending, Rollout, VersionRef
from orchestrator.store.documents.rule import StoredRule
from orchestrator.store.documents.tokens import Scope, Secret, Token, Tokens
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.run_stats import RunStats
from ship.artifact.card import PromptCard
from ship.artifact.held_out import HeldOut
from ship.decision.rule import Costs, DecisionRule
from ship.errors import ShipError
from tests.unit.json_changes import changed, written
from tests.unit.orchestrator.store.factory import TIME_S, make_key

FIXTURES = Path(__file__).parents[__name__.count(".") - 1] / "fixtures"
A, B = make_key("a"), make_key("b")
PIN = Pin(sequence=3, digest=A)
RECORD = AuditRecord.make(
    "promote",
    "bolts",
    {"champion": 1},
    {"champion": 2, "share": 0.5, "note": None},
    Author(by="anna", host="line-pc", reason="better", user="anna"),
    since=PIN,
    time_s=TIME_S,
    record_id="0" * 32,
)
TRAIL = Trail(waiting=(RECORD,), last=PIN)
CHANGE = Change(kind="promote", by="anna", host="line-pc", time_s=TIME_S, reason="", change_id="1")
Read = Callable[[bytes], bytes]


def _read_stats(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        objects = LocalObjects(Path(folder))
        objects.put_new(f"stats/{A}.json", content)
        return repr(RunStats(objects).read(A)).encode()


def _write_stats() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        objects = LocalObjects(Path(folder))
        RunStats(objects).add(A, [TuningRun(task_key=B, num_passes=5, tuning_s=2.5, time_s=TIME_S)])
        return objects.get(f"stats/{A}.json").data


# A sound document of each kind, and a function that reads it and writes it again.
DOCUMENTS: dict[str, tuple[bytes, Read]] = {
    "catalog": (
        Catalog(
            entries={
                "bolts": CatalogEntry(
                    version=2,
                    digest=A,
                    others={3: B},
                    canary=Canary(version=3, share=0.25),
                    shadow=3,
                    rules={A: B},
                )
            },
            idle={"nuts": IdleTask(versions={1: B}), "caps": IdleTask(is_retired=True)},
        ).to_bytes(),
        lambda content: Catalog.from_bytes(content).to_bytes(),
    ),
    "rollout": (
        Rollout(
            task="bolts",
            model_ms=1,
            generation=4,
            aliases=Aliases(versions={"champion": 1, "canary": 2}, share=0.5),
            mirrored=Aliases(versions={"champion": 1}),
            versions={
                1: VersionRef(digest=A, published_s=TIME_S),
                2: VersionRef(digest=None, published_s=1.0),
            },
            change=CHANGE,
            pending=Pending(version=2, digest=None, champion=1, request=CHANGE),
            trail=TRAIL,
        )
        .with_rule(A, B)
        .to_json(),
        lambda content: Rollout.from_json(content, "rollout").to_json(),
    ),
    "tokens": (
        Tokens(
            by_name={
                "plc": Token(
                    scope=Scope(predict=("line-1-*",), metrics=True),
                    secrets=(Secret(token_id="a" * 12, sha256=A, created_s=1.0, expires_s=9.5),),
                )
            },
            trail=TRAIL,
        ).to_json(),
        lambda content: Tokens.from_json(content).to_json(),
    ),
    "approvals": (
        ApprovalRules(patterns=("line-1-*",), tasks=frozenset({"bolts"}), trail=TRAIL).to_json(),
        lambda content: ApprovalRules.from_json(content).to_json(),
    ),
    "owner": (
        Owner(registry="0" * 32, where="sqlite:////m.db", since_s=TIME_S, trail=TRAIL).to_json(),
        lambda content: Owner.from_json(content).to_json(),
    ),
    "publication": (
        make_marker("bolts", "k" * 64, A, TIME_S),
        lambda content: Marker.read(content, "marker", "delete it").model_dump_json().encode(),
    ),
    "rule": (
        StoredRule(
            task="bolts",
            artifact=A,
            rule=DecisionRule(
                temperature=1.5,
                thresholds={"scratch": 0.2},
                recalls={"scratch": 0.99},
                costs=Costs(good="good", escape=50.0, unsure=0.2),
                max_distance=12.5,
                expected={"images": 40},
            ),
            by="anna",
            host="line-pc",
            time_s=TIME_S,
            reason="scratches",
        ).to_json(),
        lambda content: StoredRule.from_json(content, "rule").to_json(),
    ),
    "rule of a balanced task": (
        StoredRule(
            task="bolts",
            artifact=A,
            rule=DecisionRule(costs=Costs(good="good"), frequencies={"good": 0.96, "scratch": 0.04}),
            by="anna",
            host="line-pc",
            time_s=TIME_S,
        ).to_json(),
        lambda content: StoredRule.from_json(content, "rule").to_json(),
    ),
    "audit entry": (
        AuditEntry(sequence=4, previous=A, record=RECORD).to_json(),
        lambda content: AuditEntry.from_json(content, "audit/4").to_json(),
    ),
    "statistics": (_write_stats(), _read_stats),
    "held_out": (
        HeldOut(
            labels=("good", "bad"),
            paths=("a.png", "b/c.png"),
            digests=("0" * 32, "1" * 32),
            labels_B=(0, 1),
            logits_BC=((1.0, -1.5), (0.25, 2.0)),
            probe_logits_BC=((1.0, -1.0), (0.0, 2.0)),
            distances_B=(1.0, 2.0),
            thumbnails={1: b"\xff\xd8\xff\xe0"},
            num_images=7,
        ).to_json(),
        lambda content: HeldOut.from_json(content).to_json(),
    ),
    "card": (
        # Written anew, for settings of then are read as those of today.
        PromptCard.from_json((FIXTURES / "artifact-0.1.0" / "prompt.json").read_bytes()).to_json(),
        lambda content: PromptCard.from_json(content).to_json(),
    ),
}
BOUNDED = settings(
    derandomize=True, max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_sound_document_is_accepted(kind: str) -> None:
    content, read = DOCUMENTS[kind]
    assert read(content)


@pytest.mark.parametrize("kind", DOCUMENTS)
@BOUNDED
@given(st.data())
def test_a_changed_document_is_read_as_it_is_or_refused_by_name(kind: str, data: st.DataObject) -> None:
    sound, read = DOCUMENTS[kind]
    content = json.dumps(data.draw(changed(json.loads(sound)))).encode()
    _assert_same_or_refused(read, content)


@pytest.mark.parametrize("kind", DOCUMENTS)
@settings(parent=BOUNDED, max_examples=25)
@given(st.data())
def test_other_bytes_are_refused_by_name(kind: str, data: st.DataObject) -> None:
    sound, read = DOCUMENTS[kind]
    _assert_same_or_refused(read, data.draw(st.one_of(written(sound), st.binary(max_size=30))))


def _assert_same_or_refused(read: Read, content: bytes) -> None:
    try:
        again = read(content)
    except ShipError as error:
        refused = error.problems
    else:
        refused = ()
        if again.startswith(b"{"):
            assert read(again) == again, "what was read is written so that it reads the same"
            assert not _lost(json.loads(content), json.loads(again))
    assert all(0 < len(problem.encode()) < 3000 for problem in refused), "none repeats all that it refuses"


def _lost(before: Any, after: Any) -> list[Any]:
    """Values of a document that are others after it was read; what is added is not looked at."""
    if isinstance(before, dict) and isinstance(after, dict | None):
        # What holds nothing may be left out.
        after = after or {}
        return [lost for key in before for lost in _lost(before[key], after.get(key))]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [lost for one, other in zip(before, after, strict=True) for lost in _lost(one, other)]
    # An integer is read as the nearest float where one is expected.
    is_same = before == after or repr(before) == repr(after) == "nan"
    is_same = is_same or (isinstance(before, int) and isinstance(after, float) and float(before) == after)
    return [] if is_same or before is None or not before else [(before, after)]
