"""A run that is watched and steered from other terminals, with real Ray Train."""

import time
from pathlib import Path

import pytest

from tests.integration.plant import PATIENCE_S, Plant, descendants, make_plant, wait_until_gone


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return make_plant(tmp_path_factory.mktemp("control"))


def states(plant: Plant) -> dict[str, str]:
    said = plant.ship_json("status")
    assert said["is_at_work"]
    return {task["task"]: task["state"] for task in said["tasks"]}


def wait_for_lease(plant: Plant) -> str:
    """A task that is tuned; the status that others see is renewed every second or two."""
    deadline_s = time.monotonic() + PATIENCE_S
    while "leased" not in (found := states(plant)).values():
        assert time.monotonic() < deadline_s, found
    return next(task for task, state in found.items() if state == "leased")


def test_a_run_is_watched_steered_and_ended_from_another_terminal(plant: Plant) -> None:
    # So many epochs that nothing ends by itself.
    manifest = str(plant.write_manifest(["line-a", "line-b"], epochs=50_000))
    with plant.start("tune", manifest) as process:
        assert process.stdout is not None
        assert any("tunes" in line for line in process.stdout)
        family = [pid for pid, _ in descendants(process.pid)]
        # With one worker it may be either that is taken up first.
        task = wait_for_lease(plant)

        second = plant.ship("tune", manifest)
        assert second.returncode == 1
        assert f"another `ship tune` runs in {plant.home}" in second.stderr
        assert f"process {process.pid}" in second.stderr

        assert plant.ship_json("cancel", task) == {"stopped": False, "cancelled": [task]}
        assert plant.ship_json("cancel", task) == {"stopped": False, "cancelled": []}
        assert plant.ship_json("retry", task) == {"taken_up": [task], "refused": {}}
        unknown = plant.ship("cancel", "line-z")
        assert (unknown.returncode, "no such task in the run: line-z" in unknown.stderr) == (1, True)

        assert plant.ship_json("cancel") == {"stopped": True, "cancelled": []}
        printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, printed
    assert "Interrupted; run the same command to resume." in printed
    assert wait_until_gone(family) == []

    over = plant.ship_json("status")
    assert not over["is_at_work"]
    logged = plant.ship("logs", task).stdout
    told = [word for word in ("taken up by worker-", "cancelled", "retried on request") if word in logged]
    assert len(told) == 3, logged
    assert not list(Path(plant.home, "store", "published").glob("*/*.json"))
    late = plant.ship("retry", "--failed")
    assert (late.returncode, "no `ship tune` runs in" in late.stderr) == (1, True)
