"""Documents of every kind that earlier versions wrote are read; those of later ones are refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from orchestrator.backup.layout import BLOBS, read_manifest
from orchestrator.backup.taking import take_backup
from orchestrator.errors import StoreError
from orchestrator.planning.estimates import TuningRun
from orchestrator.store.approvals import read_rules
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.audit.verification import verify
from orchestrator.store.documents.audit import Pin
from orchestrator.store.documents.document import NewerSchemaError
from orchestrator.store.documents.rollout import Rollout
from orchestrator.store.garbage.marks import Marks
from orchestrator.store.lease import StoreLease
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.prompt_store import PromptStore
from orchestrator.store.run_stats import RunStats
from ship.artifact.card import PromptCard
from ship.artifact.held_out import HELD_OUT, HeldOut
from ship.errors import ShipError
from ship.tuning.state import TuningState
from tests.unit.orchestrator.registry.factory import MemoryObjects
from tests.unit.orchestrator.store.factory import make_key

FIXTURES = Path(__file__).parents[__name__.count(".") - 1] / "fixtures"
WRITTEN = FIXTURES / "store-2026-11"
BACKBONE, TUNING = make_key("backbone"), make_key("tuning")


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    shutil.copytree(WRITTEN / "store", tmp_path / "store")
    return LocalObjects(tmp_path / "store")


@pytest.fixture
def store(objects: LocalObjects) -> PromptStore:
    return PromptStore(objects)


def read_snapshot(content: bytes) -> TuningState:
    """A snapshot, whatever tuning it is of."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return TuningState.from_bytes(content, json.loads(header["ship"])["identity"], torch.device("cpu"))


def test_a_whole_store_is_read(store: PromptStore, objects: LocalObjects) -> None:
    catalog, _ = store.read_catalog()
    rollout, _ = store.read_rollout("bolts")
    entry = catalog.entries["bolts"]
    assert (entry.version, entry.canary.version, entry.canary.share) == (2, 3, 0.25)
    assert (rollout.version("champion"), rollout.pending.version, rollout.change.kind) == (2, 3, "request")
    assert rollout.champion_s == 1_800_000_000.0
    (rule,) = rollout.rules.values()
    assert store.rules.read(rule).rule.thresholds == {"scratch": 0.2}
    assert sorted(one.digest for one in store.all_published().values()) == sorted(
        ref.digest for ref in rollout.versions.values()
    )
    for digest in catalog.digests:
        assert store.fetch(digest)
        assert store.fetch_held_out(digest).num_images == 600
    tokens, _ = store.read_tokens()
    assert tokens.by_name["line-1"].scope.may_predict("bolts")
    assert tokens.broken == {}
    assert read_rules(objects).patterns == ("bolts",)
    assert store.read_owner()[0].registry == "a" * 32
    assert RunStats(objects).read(BACKBONE) == (
        TuningRun(task_key=make_key("k"), num_passes=5, tuning_s=2.5, time_s=1_700_000_000.0),
    )
    assert not StoreLease(objects, "recorder.json").acquire(), "another process holds it"
    assert Marks(objects)._marked, "marks of an earlier run count"


def test_the_audit_log_has_no_break(store: PromptStore) -> None:
    found = verify(store)
    assert found.breaks == ()
    assert found.head == Pin(sequence=7, digest=AuditLog(store).head().digest)
    assert [entry.record.action for entry in AuditLog(store).newest()][::-1][:2] == ["begin", "adopt"]


def test_a_tuning_goes_on_from_its_snapshot(store: PromptStore) -> None:
    content = store.snapshots.load("bolts", TUNING)
    assert TuningState.config_of(content).epochs == 2
    assert TuningState.note_of(content) is None
    assert [report.epoch for report in read_snapshot(content).history] == [1]


def test_the_first_rollouts_are_read() -> None:
    rollout = Rollout.from_json((WRITTEN / "rollout-first.json").read_bytes(), "rollout")
    assert rollout.aliases.versions == {"champion": 2, "previous": 1, "canary": 3}
    assert (rollout.aliases.share, rollout.champion_s, rollout.pending) == (0.25, 1_800_000_060.0, None)


def bumped(content: bytes) -> bytes:
    """The same as a later version would write it, with a key that is not known here."""
    values = json.loads(content)
    return json.dumps({**values, "schema": values.get("schema", 1) + 6, "brand_new": 1}).encode()


def bump(objects: LocalObjects, prefix: str) -> None:
    for key in list(objects.list(prefix)):
        objects.put(key, bumped(objects.get(key).data))


READERS: dict[str, Callable[[PromptStore], Any]] = {
    "catalog.json": lambda store: store.read_catalog(),
    "rollouts/": lambda store: store.read_rollout("bolts"),
    "rules/": lambda store: _read_rule(store),
    "tokens.json": lambda store: store.read_tokens(),
    "approvals.json": lambda store: read_rules(store.objects),
    "registry.json": lambda store: store.read_owner(),
    "published/": lambda store: store.all_published(),
    "stats/": lambda store: RunStats(store.objects).read(BACKBONE),
    "garbage/marked.json": lambda store: Marks(store.objects),
}


def _read_rule(store: PromptStore) -> Any:
    from orchestrator.store.documents.rule import StoredRule

    (key,) = store.objects.list("rules/")
    return StoredRule.from_json(store.objects.get(key).data, key)


@pytest.mark.parametrize("prefix", READERS)
def test_a_document_of_a_later_version_is_refused_by_name_and_not_as_damage(
    prefix: str, store: PromptStore, objects: LocalObjects
) -> None:
    assert READERS[prefix](store)
    bump(objects, prefix)
    with pytest.raises(NewerSchemaError, match=r"of a later version of this program; update this program"):
        READERS[prefix](PromptStore(objects))


def test_an_entry_of_the_audit_log_of_a_later_version_is_named(
    store: PromptStore, objects: LocalObjects
) -> None:
    last = "audit/000000000007.json"
    objects.put(last, bumped(objects.get(last).data))
    breaks = {one.place: one.message for one in verify(store).breaks if one.kind == "damaged"}
    assert "of a later version of this program; update this program" in breaks[last]


def test_statistics_and_a_lease_of_a_later_version_are_not_written_over(objects: LocalObjects) -> None:
    for key in ("stats/", "recorder.json"):
        bump(objects, key)
    before = {key: objects.get(key).data for key in (f"stats/{BACKBONE}.json", "recorder.json")}
    with pytest.raises(NewerSchemaError):
        RunStats(objects).add(BACKBONE, [TuningRun(task_key=TUNING, num_passes=1, tuning_s=1.0, time_s=1.0)])
    assert not StoreLease(objects, "recorder.json").acquire()
    assert {key: objects.get(key).data for key in before} == before


@pytest.mark.parametrize(("name", "read"), [("prompt.json", PromptCard), (HELD_OUT, HeldOut)])
def test_a_file_of_an_artifact_of_a_later_version(
    name: str, read: type[PromptCard] | type[HeldOut], store: PromptStore, objects: LocalObjects
) -> None:
    digest = store.read_catalog()[0].entries["bolts"].digest
    content = objects.get(f"artifacts/{digest}/{name}").data
    assert read.from_json(content)
    with pytest.raises(ShipError, match=rf"{name}: schema: expected .* of a later version of this program"):
        read.from_json(bumped(content))


def test_a_snapshot_of_a_later_version(store: PromptStore) -> None:
    content = store.snapshots.load("bolts", TUNING)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["ship"]
    later = save(load(content), metadata={"ship": bumped(header.encode()).decode()})
    for read in (TuningState.config_of, read_snapshot):
        with pytest.raises(ShipError, match=r"snapshot: schema: expected 1, found 7, of a later version"):
            read(later)


def test_a_backup_of_a_later_version(objects: LocalObjects) -> None:
    place = MemoryObjects()
    id_ = take_backup(objects, place, lambda: None).manifest.id
    assert read_manifest(place).objects
    done = place.get(f"backups/{id_}/done.json").data
    place.put(f"backups/{id_}/done.json", bumped(done))
    with pytest.raises(StoreError, match="of a later version"):
        read_manifest(place)
    assert list(place.list(BLOBS))
