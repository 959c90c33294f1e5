"""The note of an endpoint that runs detached, and what `ship serve --stop` says without one."""

from pathlib import Path

import pytest

from orchestrator.cluster.detached import DetachedRay, end_detached
from orchestrator.errors import ServeError
from orchestrator.serve.launch.checks import check_backbone
from orchestrator.serve.launch.detached import (
    DetachedEndpoint,
    find_detached,
    forget_detached,
    note_detached,
)
from orchestrator.serve.launch.endpoint import stop
from orchestrator.settings import Settings
from tests.factories import write_backbone


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({}, home=str(tmp_path / "home"))


@pytest.fixture
def endpoint(tmp_path: Path) -> DetachedEndpoint:
    ray = DetachedRay(address="127.0.0.1:1", folder=tmp_path / "ship-ray-none")
    return DetachedEndpoint(name="line-1", url="http://127.0.0.1:8000", ray=ray)


def test_it_is_found_until_it_is_forgotten(settings: Settings, endpoint: DetachedEndpoint) -> None:
    assert find_detached(settings) is None
    note_detached(settings, endpoint)
    assert find_detached(settings) == endpoint
    assert (settings.home / "endpoint.json").stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        forget_detached(settings)
        assert find_detached(settings) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1, "url": "", "address": "", "folder": ""}'])
def test_a_damaged_note_is_told_by_its_path(settings: Settings, content: str) -> None:
    settings.home.mkdir()
    (settings.home / "endpoint.json").write_text(content)
    with pytest.raises(ServeError, match=r"endpoint\.json.*delete it"):
        find_detached(settings)


def test_stop_names_what_runs(settings: Settings, endpoint: DetachedEndpoint) -> None:
    with pytest.raises(ServeError, match=r"RAY_ADDRESS.*--detach"):
        stop(settings, None)
    note_detached(settings, endpoint)
    with pytest.raises(ServeError, match="'line-1', not 'line-2'"):
        stop(settings, "line-2")


def test_no_other_folder_than_that_of_a_ray_is_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    end_detached(tmp_path / "precious")
    assert (tmp_path / "precious").is_dir()
    (tmp_path / "ship-ray-gone").mkdir()
    end_detached(tmp_path / "ship-ray-gone")
    assert not (tmp_path / "ship-ray-gone").exists()


def test_files_of_a_backbone_that_are_not_there_are_told_before_a_start(tmp_path: Path) -> None:
    write_backbone(tmp_path / "vit")
    for spec in ("bundled", "vit_base_patch16_224", str(tmp_path / "vit"), "store:0123456789abcdef"):
        check_backbone(spec, is_local=True)
    for spec in (str(tmp_path / "nothing"), f"vit_tiny_patch16_224:{tmp_path}/none.safetensors"):
        with pytest.raises(ServeError, match="is not there; expected"):
            check_backbone(spec, is_local=True)
        check_backbone(spec, is_local=False)
