"""A scene of a tiny backbone: files of its tasks, pictures and right answers."""

from collections.abc import Iterator

import pytest

from tests.benchmarks.serve.peers.knobs import Knobs, Launch
from tests.benchmarks.serve.peers.scene import Scene, open_scene


@pytest.fixture(scope="session")
def scene() -> Iterator[Scene]:
    with open_scene("tiny", 3, 2, is_published=False) as opened:
        yield opened


@pytest.fixture
def launch(scene: Scene) -> Launch:
    knobs = Knobs(num_threads=1, max_batch=4, wait_s=0.001)
    return Launch(folder=str(scene.folder), tasks=scene.tasks, port=1, knobs=knobs)
