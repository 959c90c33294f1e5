"""Variables of a Ray that is started here."""

import os
from pathlib import Path

import pytest
import ray

from orchestrator.cluster.variables import ROTATION, SERVING, variables_of_ray


def test_they_are_set_for_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ROTATION:
        monkeypatch.delenv(name, raising=False)
    with variables_of_ray(ROTATION):
        assert ROTATION.items() <= os.environ.items()
    assert not ROTATION.keys() & os.environ.keys()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ROTATION_MAX_BYTES", "1000")
    with variables_of_ray(ROTATION):
        assert os.environ["RAY_ROTATION_MAX_BYTES"] == "1000"
    assert os.environ["RAY_ROTATION_MAX_BYTES"] == "1000"


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("_private/node.py", list(ROTATION)),
        ("_private/ray_constants.py", ["RAY_worker_niceness"]),
        ("serve/_private/constants.py", ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"]),
    ],
)
def test_ray_reads_these_names(file: str, names: list[str]) -> None:
    """A name that Ray does not read would change nothing."""
    content = (Path(ray.__file__).parent / file).read_text()
    assert set(names) <= {*ROTATION, *SERVING}
    assert all(f'"{name}"' in content for name in names)
