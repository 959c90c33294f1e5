"""Sizes of Ray's logs, for a Ray that is started here."""

import os

import pytest

from orchestrator.cluster.log_rotation import ROTATION, rotating_logs


def test_sizes_are_set_for_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ROTATION:
        monkeypatch.delenv(name, raising=False)
    with rotating_logs():
        assert ROTATION.items() <= os.environ.items()
    assert not ROTATION.keys() & os.environ.keys()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ROTATION_MAX_BYTES", "1000")
    with rotating_logs():
        assert os.environ["RAY_ROTATION_MAX_BYTES"] == "1000"
    assert os.environ["RAY_ROTATION_MAX_BYTES"] == "1000"


def test_ray_reads_these_names() -> None:
    """A name that Ray does not read would leave its logs as large as before."""
    from pathlib import Path

    import ray

    node = (Path(ray.__file__).parent / "_private" / "node.py").read_text()
    assert all(f'"{name}"' in node for name in ROTATION)
