from contextlib import closing
from pathlib import Path

from orchestrator.events import Event
from orchestrator.registry.spool import REJECTED, Spool
from tests.unit.orchestrator.store.factory import make_event

EVENTS = [make_event("leased", at_s=1), make_event("epoch", at_s=2, epoch=1, loss=0.5)]


def leave(folder: Path) -> None:
    """A driver that dies with its events unwritten."""
    with closing(Spool(folder)) as spool:
        spool.append(EVENTS)


def take(folder: Path) -> list[Event]:
    with closing(Spool(folder)) as spool:
        return spool.take_leftovers()


def test_a_dead_drivers_events_are_taken_over_once(tmp_path: Path) -> None:
    leave(tmp_path)

    with closing(Spool(tmp_path)) as heir:
        assert heir.take_leftovers() == EVENTS
        assert heir.take_leftovers() == []
        assert len(list(tmp_path.glob("*.jsonl"))) == 1
        assert len(list(tmp_path.glob("*.lock"))) == 1


def test_what_was_taken_over_survives_the_heir_too(tmp_path: Path) -> None:
    leave(tmp_path)
    for _ in range(2):
        assert take(tmp_path) == EVENTS


def test_a_living_drivers_events_are_its_own(tmp_path: Path) -> None:
    with closing(Spool(tmp_path)) as living:
        living.append(EVENTS)
        assert take(tmp_path) == []

    assert take(tmp_path) == EVENTS


def test_a_line_cut_short_loses_only_itself(tmp_path: Path) -> None:
    leave(tmp_path)
    path = next(tmp_path.glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-10])

    assert take(tmp_path) == EVENTS[:1]
    assert "unreadable" in (tmp_path / REJECTED).read_text()


def test_nothing_is_left_of_a_spool_that_was_emptied(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append(EVENTS)
    spool.replace([])
    spool.close()

    assert list((tmp_path / "spool").iterdir()) == []


def test_a_spool_without_events_touches_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")

    assert spool.take_leftovers() == []
    spool.replace([])
    spool.close()

    assert not (tmp_path / "spool").exists()


def test_what_is_kept_replaces_what_was_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(EVENTS)
    spool.replace(EVENTS[1:])
    spool.close()

    assert take(tmp_path) == EVENTS[1:]
