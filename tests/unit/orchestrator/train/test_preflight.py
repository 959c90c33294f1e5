"""What cannot be used is found before anything is tuned, all of it at once, and nothing is left behind."""

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster.reachable import check_reachable
from orchestrator.errors import ClusterError, ExecutionError, StoreError
from orchestrator.settings import Settings
from orchestrator.store.objects.fsspec_objects import FsspecObjects
from orchestrator.store.objects.local import LocalObjects
from orchestrator.store.objects.open import open_objects
from orchestrator.store.objects.protocol import ObjectStore
from orchestrator.train.preflight import check_before_tuning


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"SHIP_CACHE": str(tmp_path / "cache")}, home=str(tmp_path / "home"))


def local(settings: Settings) -> ObjectStore:
    return LocalObjects(Path(settings.store))


def check(settings: Settings, objects: ObjectStore | None = None) -> None:
    check_before_tuning(settings, lambda: objects or local(settings), environ={})


def test_nothing_is_left_of_the_tries(settings: Settings, tmp_path: Path) -> None:
    check(settings)
    assert list(tmp_path.iterdir()) == []
    settings.home.mkdir()
    check(settings)
    assert list(settings.home.iterdir()) == []


def test_every_place_that_is_no_folder_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    (tmp_path / "cache").write_text("another")
    with pytest.raises(ExecutionError) as refused:
        check(settings)
    told = refused.value.problems
    assert [problem.split(":")[0] for problem in told] == [
        "SHIP_HOME",
        "SHIP_CACHE",
        "SHIP_STORE",
        "MLFLOW_TRACKING_URI",
    ]
    assert all("cannot be written to" in problem and "nothing was tuned" in problem for problem in told)


@pytest.mark.parametrize("url", ["{}", "file://{}"])
def test_a_store_in_a_folder_is_tried_there_however_it_is_named(
    settings: Settings, tmp_path: Path, url: str
) -> None:
    (place := tmp_path / "my store").write_text("a file")
    store = url.format(str(place).replace(" ", "%20") if "://" in url else place)
    with pytest.raises(ExecutionError, match=r"SHIP_STORE: .*my store cannot be written to"):
        check(replace(settings, store=store), open_objects(store))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(settings: Settings) -> None:
    settings.home.mkdir(mode=0o500)
    with pytest.raises(ExecutionError, match=r"SHIP_HOME: .*Permission denied"):
        check(settings)


def test_a_cache_that_is_turned_off_is_not_tried(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ExecutionError, match="SHIP_CACHE"):
        check(settings)
    check(replace(settings, cache_bytes=0))
    assert [place.name for place in tmp_path.iterdir()] == ["cache"]
    assert (tmp_path / "cache").read_text() == "a file"


class _ReadOnly(FsspecObjects):
    """A bucket of which one right is missing."""

    lacks = "put_new"

    def put_new(self, key: str, data: bytes) -> bool:
        if self.lacks == "put_new":
            raise StoreError(f"cannot write {self.url}/{key}: AccessDenied")
        return super().put_new(key, data)

    def delete(self, key: str) -> None:
        if self.lacks == "delete":
            raise StoreError(f"cannot delete {self.url}/{key}: AccessDenied")
        super().delete(key)


@pytest.mark.parametrize("lacks", ["put_new", "delete"])
def test_a_bucket_that_lacks_a_right(settings: Settings, lacks: str) -> None:
    objects = _ReadOnly("memory://bucket/preflight")
    objects.lacks = lacks
    remote = replace(settings, store="memory://bucket/preflight")
    with pytest.raises(ExecutionError, match=r"the store cannot be written to: cannot .*AccessDenied"):
        check(remote, objects)
    objects.lacks = ""
    check(remote, objects)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nothing listens at while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_addresses_that_nothing_answers_at(settings: Settings, closed_port: int) -> None:
    with pytest.raises(ExecutionError, match=f"RAY_ADDRESS=127.0.0.1:{closed_port}: nothing answers at"):
        check(replace(settings, ray_address=f"127.0.0.1:{closed_port}"))
    bucket = replace(settings, store="s3://models/ship")
    endpoint = {"AWS_ENDPOINT_URL": f"http://user:S3cret@127.0.0.1:{closed_port}"}
    with pytest.raises(ExecutionError, match="AWS_ENDPOINT_URL=") as refused:
        check_before_tuning(bucket, lambda: local(settings), environ=endpoint)
    assert "S3cret" not in str(refused.value)


def test_a_tracking_server_that_is_down_is_a_warning(
    settings: Settings, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(replace(settings, tracking_uri=f"http://127.0.0.1:{closed_port}"))
    assert "MLFLOW_TRACKING_URI" in caplog.text


def places_tried(address: str) -> list[tuple[str, int]]:
    tried: list[tuple[str, int]] = []

    def connect(place: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(place)
        return socket.socket()

    check_reachable("RAY_ADDRESS", address, connect)
    return tried


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("head:6379", ("head", 6379)),
        ("ray://head", ("head", 10001)),
        ("http://head", ("head", 80)),
        ("https://user:secret@head/mlflow", ("head", 443)),
        ("https://[::1]:8080", ("::1", 8080)),
    ],
)
def test_an_address_is_tried_at_its_host_and_port(address: str, place: tuple[str, int]) -> None:
    assert places_tried(address) == [place]


@pytest.mark.parametrize("address", ["", "host", "ray.sock"])
def test_an_address_without_host_and_port_is_left_alone(address: str) -> None:
    assert places_tried(address) == []


@pytest.mark.parametrize("address", ["host:port", "http://[::1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match="expected HOST:PORT"):
        places_tried(address)
