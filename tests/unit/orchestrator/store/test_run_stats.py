from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.planning.estimates import TuningRun
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.open import ObjectStore
from orchestrator.store.run_stats import MAX_BYTES, MAX_RUNS, RunStats
from tests.unit.orchestrator.store.factory import make_key

BACKBONE = make_key("backbone")


def run(number: int, **values: float) -> TuningRun:
    return TuningRun(
        task_key=f"{number:064x}", num_passes=100, tuning_s=values.get("tuning_s", 2.0), time_s=float(number)
    )


def test_runs_of_several_drivers_are_kept_together_by_backbone(objects: ObjectStore) -> None:
    stats = RunStats(objects)
    assert stats.read(BACKBONE) == ()

    stats.add(BACKBONE, [run(2), run(1)])
    RunStats(objects).add(BACKBONE, [run(3), run(1, tuning_s=5.0)])
    stats.add(make_key("other"), [run(9)])

    assert stats.read(BACKBONE) == (run(1, tuning_s=5.0), run(2), run(3))
    assert stats.read(make_key("other")) == (run(9),)
    assert len(list(objects.list("stats/"))) == 2


def test_the_latest_are_kept_and_the_record_stays_small(objects: ObjectStore) -> None:
    stats = RunStats(objects)
    stats.add(BACKBONE, [run(number) for number in range(MAX_RUNS)])
    stats.add(BACKBONE, [run(number) for number in range(MAX_RUNS, MAX_RUNS + 50)])

    kept = stats.read(BACKBONE)
    assert [kept[0], kept[-1], len(kept)] == [run(50), run(MAX_RUNS + 49), MAX_RUNS]
    assert len(objects.get(f"stats/{BACKBONE}.json").data) * 10 < MAX_BYTES


def test_nothing_to_add_writes_nothing(tmp_path: Path) -> None:
    RunStats(LocalObjects(tmp_path / "store")).add(BACKBONE, [])

    assert not (tmp_path / "store").exists()


class AnotherDriver(LocalObjects):
    """Lets another driver write in the moment before, once."""

    is_done = False

    def _interfere(self) -> None:
        if not self.is_done:
            self.is_done = True
            RunStats(LocalObjects(self._root)).add(BACKBONE, [run(7)])

    def put_new(self, key: str, data: bytes) -> bool:
        self._interfere()
        return super().put_new(key, data)

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        self._interfere()
        return super().put(key, data, if_match=if_match)


@pytest.mark.parametrize("earlier", [[], [run(1)]], ids=["first", "later"])
def test_two_drivers_at_once_lose_nothing(tmp_path: Path, earlier: list[TuningRun]) -> None:
    RunStats(LocalObjects(tmp_path)).add(BACKBONE, earlier)

    RunStats(AnotherDriver(tmp_path)).add(BACKBONE, [run(8)])

    assert RunStats(LocalObjects(tmp_path)).read(BACKBONE) == (*earlier, run(7), run(8))


def test_a_store_where_others_always_win_says_so(tmp_path: Path) -> None:
    class AlwaysTaken(LocalObjects):
        def put_new(self, key: str, data: bytes) -> bool:
            return False

    with pytest.raises(StoreError, match="without pause"):
        RunStats(AlwaysTaken(tmp_path)).add(BACKBONE, [run(1)])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"schema":0,"runs":[]}',
        b'{"schema":1,"runs":5}',
        b'{"schema":1,"runs":[{"task_key":"x","num_passes":1,"tuning_s":1,"time_s":1}]}',
        b'{"schema":1,"runs":[{"task_key":"%s","num_passes":1,"tuning_s":NaN,"time_s":1}]}' % (b"0" * 64),
        b'{"schema":1,"runs":[{"task_key":"%s","num_passes":0,"tuning_s":1,"time_s":1}]}' % (b"0" * 64),
    ],
)
def test_a_damaged_record_is_named_and_written_anew(objects: ObjectStore, content: bytes) -> None:
    objects.put(f"stats/{BACKBONE}.json", content)

    with pytest.raises(StoreError, match=rf"stats/{BACKBONE}\.json: .*delete it"):
        RunStats(objects).read(BACKBONE)
    RunStats(objects).add(BACKBONE, [run(1)])
    assert RunStats(objects).read(BACKBONE) == (run(1),)


def test_what_is_no_fingerprint_makes_no_key(objects: ObjectStore) -> None:
    with pytest.raises(StoreError, match="64 hex digits"):
        RunStats(objects).read("../x")
