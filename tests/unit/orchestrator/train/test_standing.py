"""What serves of tasks whose artifact is in the store: a registry of plain values tells it."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import RegistryError
from orchestrator.registry.session import RegistryDown, RegistryMissing
from orchestrator.registry.versions import RETIRED, TASK_KEY_TAG, TaskInfo, VersionInfo
from orchestrator.train.standing import Standing, find_standings


def make_version(number: int, key: str | None) -> VersionInfo:
    return VersionInfo(
        version=number,
        digest=f"{number}",
        source="",
        metrics={},
        aliases=(),
        created_s=0.0,
        run_id=None,
        tags={} if key is None else {TASK_KEY_TAG: key},
    )


V1, V2 = make_version(1, "key-1"), make_version(2, "key-2")


def make_task(champion: VersionInfo | None, **values: Any) -> TaskInfo:
    return TaskInfo(
        task="caps", champion=champion, challenger=None, previous=None, latest=2, updated_s=0.0, **values
    )


class Registry:
    """One task with two versions; counts the listings of all versions."""

    def __init__(self, info: TaskInfo | RegistryError) -> None:
        self.info, self.num_listed = info, 0

    def tasks(self) -> list[TaskInfo]:
        if isinstance(self.info, RegistryError):
            raise self.info
        return [self.info, replace(self.info, task="other")]

    def gated_versions(self) -> dict[tuple[str, str], VersionInfo]:
        self.num_listed += 1
        return {("caps", "1"): V1, ("caps", "2"): V2, ("other", "1"): V2}


@pytest.mark.parametrize(
    ("info", "key", "expected", "told"),
    [
        (make_task(V2), "key-2", Standing(version=2, champion=2), "version 2 serves"),
        (
            make_task(V2),
            "key-1",
            Standing(version=1, champion=2),
            "as version 1; version 2 serves",
        ),
        (
            make_task(None),
            "key-1",
            Standing(version=1, champion=None),
            "as version 1; nothing serves",
        ),
        (
            make_task(None, aliases={RETIRED: 1}),
            "key-1",
            Standing(version=1, champion=None, is_retired=True),
            "in the store as version 1; the task is retired",
        ),
        (make_task(make_version(3, None)), "key-1", Standing(version=1, champion=3), "version 3 serves"),
    ],
)
def test_the_version_of_a_key_is_told_beside_the_champion(
    info: TaskInfo, key: str, expected: Standing, told: str
) -> None:
    registry = Registry(info)
    assert find_standings(registry, [("caps", key)]) == {"caps": expected}
    assert told in expected.describe()
    assert registry.num_listed == (0 if expected.serves else 1), "a champion tells its own key"


@pytest.mark.parametrize("keys", [[("caps", "unknown")], [("welds", "key-1")]])
def test_what_the_registry_does_not_know_is_left_out(keys: list[tuple[str, str]]) -> None:
    assert find_standings(Registry(make_task(V2)), keys) == {}


@pytest.mark.parametrize("error", [RegistryDown("away"), RegistryMissing("none")])
def test_a_registry_that_is_away_tells_nothing(error: RegistryError) -> None:
    assert find_standings(Registry(error), [("caps", "key-1")]) == {}


def test_without_keys_the_registry_is_not_asked() -> None:
    assert find_standings(Registry(RegistryError("it is asked")), []) == {}
