"""The watch for drift of an endpoint: whose answers count, what it writes, what a person does about it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import ManifestError, StoreError
from orchestrator.serve.drift.sighting import Sighting
from orchestrator.serve.drift.watcher import DriftWatcher, observe_held_out
from orchestrator.store.audit.log import AuditLog
from orchestrator.store.documents.audit import Author
from orchestrator.store.documents.catalog import Catalog, CatalogEntry
from orchestrator.store.documents.drift import DRIFT_KEY, DriftEntry
from orchestrator.store.drift import acknowledge, read_drift
from orchestrator.store.prompt_store import PromptStore
from ship.artifact.card import PromptCard
from ship.artifact.held_out import HeldOut
from ship.evaluation.drift import Observation
from tests.unit.orchestrator.registry.factory import MemoryObjects, make_decided

ANNA = Author(by="anna", host="press", reason="a new supplier")
LABELS = ("good", "scratched")


class Plant:
    """A store with a tuned task, and the watch of its endpoint on a clock that is moved by hand."""

    def __init__(self, *, keeps_held_out: bool = True) -> None:
        self.store = PromptStore(MemoryObjects())
        self.now_s = 1_000.0
        self.digest = self.publish(1, keeps_held_out=keeps_held_out)
        self.serve(self.digest)
        self.watcher = self.start()

    def start(self) -> DriftWatcher:
        return DriftWatcher(self.store, clock=lambda: self.now_s)

    def publish(self, number: int, *, keeps_held_out: bool = True) -> str:
        files = make_decided(number, LABELS, keeps_held_out=keeps_held_out)
        return self.store.publish("bolts", f"{number:064x}", files).digest

    def serve(self, digest: str, rules: dict[str, str] | None = None) -> None:
        found = self.store.read_catalog()
        entry = CatalogEntry(version=1, digest=digest, rules=rules or {})
        self.store.write_catalog(Catalog(entries={"bolts": entry}), None if found is None else found[1])

    def steady(self, num: int) -> list[Observation]:
        """Pictures as the held-out ones."""
        held_out = self.store.fetch_held_out(self.digest)
        assert held_out is not None
        rule = PromptCard.from_json(self.store.fetch_card(self.digest)).decision
        observed = observe_held_out(held_out, rule)
        return [observed[place * 7 % len(observed)] for place in range(num)]

    def shifted(self, num: int) -> list[Observation]:
        return [Observation(label="good", is_unsure=True, confidence=0.5, distance=50.0)] * num

    def see(self, observed: Sequence[Observation], **of: Any) -> None:
        known: dict[str, Any] = {"task": "bolts", "digest": self.digest, "rule": None, **of}
        self.watcher.see([Sighting(observed=one, **known) for one in observed])
        self.look()

    def look(self) -> None:
        self.now_s += 60.0
        assert self.watcher.step() is None

    @property
    def entry(self) -> DriftEntry:
        return read_drift(self.store.objects)[0].tasks["bolts"]


def test_a_shift_raises_an_alarm_that_is_in_the_store_and_in_metrics():
    plant = Plant()
    plant.see(plant.steady(300))
    assert plant.entry.state == "steady"
    assert plant.entry.num_seen == 300
    plant.see(plant.shifted(200))
    assert plant.entry.state == "alarm"
    assert plant.entry.alarm is not None
    assert plant.entry.alarm.num_seen <= 500
    [drift], num_alarms, num_dropped = plant.watcher.describe()
    assert (drift.task, drift.is_alarming, num_alarms, num_dropped) == ("bolts", True, 1, 0)
    assert drift.evidence >= 1.0


def test_an_alarm_is_written_at_once_and_what_can_wait_once_a_minute():
    plant = Plant()
    plant.see(plant.steady(20))
    plant.now_s -= 59.0
    plant.see(plant.steady(20))
    plant.now_s -= 59.0
    plant.watcher.step()
    assert plant.entry.num_seen == 20
    plant.watcher.see(
        [Sighting(task="bolts", digest=plant.digest, rule=None, observed=one) for one in plant.shifted(200)]
    )
    plant.watcher.step()
    assert plant.entry.state == "alarm"


def test_answers_of_other_versions_rules_and_tasks_do_not_count():
    plant = Plant()
    other = plant.publish(2)
    plant.see(plant.shifted(500), digest=other)
    plant.see(plant.shifted(500), rule="f" * 64)
    plant.see(plant.shifted(500), task="nuts")
    assert read_drift(plant.store.objects)[0].tasks == {}
    assert plant.watcher.describe() == ((), 0, 0)


def test_another_version_begins_a_new_watch():
    plant = Plant()
    plant.see(plant.shifted(300))
    assert plant.entry.state == "alarm"
    plant.digest = plant.publish(2)
    plant.serve(plant.digest)
    plant.look()
    assert "bolts" not in read_drift(plant.store.objects)[0].tasks
    assert plant.watcher.describe()[1] == 0
    plant.see(plant.steady(100))
    assert (plant.entry.state, plant.entry.digest) == ("steady", plant.digest)


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_several_ingresses_make_one_stream(parts: int):
    """Each hands on its share of the pictures; together they raise the alarm that one would."""
    plant, pictures = Plant(), Plant().shifted(210)
    for place in range(parts):
        plant.watcher.see(
            [
                Sighting(task="bolts", digest=plant.digest, rule=None, observed=one)
                for one in pictures[place::parts]
            ]
        )
    plant.look()
    alone = Plant()
    alone.see(pictures)
    assert plant.entry.alarm == replace(alone.entry.alarm, time_s=plant.entry.alarm.time_s)  # type: ignore


def test_an_alarm_outlives_the_poller_and_does_not_come_twice():
    plant = Plant()
    plant.see(plant.shifted(300))
    alarm = plant.entry.alarm
    plant.watcher = plant.start()
    plant.look()
    plant.see(plant.steady(50))
    assert plant.entry.alarm == alarm
    acknowledge(plant.store, "bolts", ANNA)
    plant.watcher = plant.start()
    plant.see(plant.shifted(300))
    assert (plant.entry.state, plant.entry.alarm) == ("acknowledged", alarm)


def test_an_acknowledged_alarm_alarms_no_more_and_is_in_the_audit_log():
    plant = Plant()
    with pytest.raises(ManifestError, match="no alarm of drift to acknowledge: it is not watched"):
        acknowledge(plant.store, "bolts", ANNA)
    plant.see(plant.shifted(300))
    acknowledge(plant.store, "bolts", ANNA, clock=lambda: 5.0)
    plant.look()
    plant.see(plant.shifted(300))
    assert plant.entry.state == "acknowledged"
    assert plant.entry.acknowledged is not None
    assert (plant.entry.acknowledged.by, plant.entry.acknowledged.reason) == ("anna", "a new supplier")
    assert plant.watcher.describe()[1] == 0
    entry = next(AuditLog(plant.store).newest())
    assert (entry.record.action, entry.record.task, entry.record.by) == ("drift-ack", "bolts", "anna")


def test_accepted_pictures_are_what_is_compared_with_from_then_on():
    plant = Plant()
    plant.see(plant.shifted(1_000))
    acknowledge(plant.store, "bolts", ANNA, accepts=True)
    plant.look()
    plant.see(plant.shifted(1_000))
    assert (plant.entry.state, plant.entry.is_accepted) == ("steady", True)
    plant.watcher = plant.start()
    plant.see(plant.shifted(200))
    assert plant.entry.state == "steady"
    plant.see(plant.steady(300))
    assert plant.entry.state == "alarm"
    assert plant.watcher.describe()[1] == 1


def test_a_version_of_an_earlier_ship_is_not_watched_and_the_reason_is_told():
    plant = Plant(keeps_held_out=False)
    plant.see(plant.shifted(300))
    assert plant.entry.state == "not watched"
    assert "an earlier ship, which kept no held-out answers" in str(plant.entry.not_watched)
    assert plant.watcher.describe() == ((), 0, 0)


def test_held_out_answers_that_could_not_be_read_are_read_again(monkeypatch: pytest.MonkeyPatch):
    plant = Plant()
    steady, read = plant.steady(20), plant.store.fetch_held_out
    failures = [StoreError("s3: timed out")]

    def fetch(digest: str) -> HeldOut | None:
        if failures:
            raise failures.pop()
        return read(digest)

    monkeypatch.setattr(plant.store, "fetch_held_out", fetch)
    plant.see(steady)
    assert plant.entry.not_watched == "its held-out answers cannot be read: s3: timed out"
    plant.see(steady)
    assert plant.entry.state == "not watched", "a read that fails is not repeated with every answer"
    plant.now_s += 300.0
    plant.see(steady)
    assert (plant.entry.state, plant.entry.not_watched) == ("steady", None)
    plant.see(plant.shifted(300))
    assert plant.entry.state == "alarm"


def test_what_another_endpoint_wrote_stays_and_a_conflict_is_tried_again():
    plant = Plant()
    plant.see(plant.steady(20))
    states, etag = read_drift(plant.store.objects)
    plant.watcher.see(
        [Sighting(task="bolts", digest=plant.digest, rule=None, observed=one) for one in plant.shifted(300)]
    )
    plant.look()
    assert plant.entry.state == "alarm"
    assert (states, etag) != read_drift(plant.store.objects)


def test_damaged_states_are_refused_without_their_content():
    plant = Plant()
    plant.store.objects.put(DRIFT_KEY, b'{"schema": 1, "tasks": {"bolts": {"digest": "secret"}}}')
    with pytest.raises(Exception, match=r"drift\.json") as caught:
        plant.watcher.step()
    assert "secret" not in str(caught.value)


def test_more_answers_than_there_is_room_for_are_dropped_and_counted():
    plant = Plant()
    one = Sighting(task="bolts", digest=plant.digest, rule=None, observed=plant.shifted(1)[0])
    for _ in range(11):
        plant.watcher.see([one] * 10_000)
    assert plant.watcher.describe()[2] == 10_000
