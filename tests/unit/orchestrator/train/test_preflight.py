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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(settings: Settings) -> None:
    settings.home.mkdir(mode=0o500)
    with pytest.raises(ExecutionError, match=r"SHIP_HOME: .*Permission denied"):
        check(settings)


def test_a_cache_that_is_turned_off_is_not_tried(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    check(replace(settings, cache_bytes=0))


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


@pytest.mark.parametrize("address", ["", "host", "ray.sock", "host:port", "http://[::1"])
def test_an_address_is_tried_where_it_has_host_and_port(address: str) -> None:
    if address in ("host:port", "http://[::1"):
        with pytest.raises(ClusterError, match="expected HOST:PORT"):
            check_reachable("RAY_ADDRESS", address)
    else:
        check_reachable("RAY_ADDRESS", address)
