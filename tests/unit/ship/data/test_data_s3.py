"""Data in a bucket, through fsspec's S3 backend and a server on loopback."""

import logging
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from ship.data import DataSource, find_folders, fingerprint_data, load_task_data, path_exists
from ship.errors import DataError


@pytest.fixture
def bucket(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # Instances outlive a test, and this one's server does not.
    S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="data")
    for path in sorted(tree.rglob("*.png")):
        client.put_object(Bucket="data", Key=f"line/{path.relative_to(tree)}", Body=path.read_bytes())
    yield "s3://data/line"
    client.close()
    S3FileSystem.clear_instance_cache()
    server.stop()


def test_bucket_equals_local(bucket: str, tree: Path) -> None:
    remote, local = DataSource(path=bucket), DataSource(path=str(tree))

    data = load_task_data(remote, image_size=(4, 4), interpolation="bicubic")
    assert torch.equal(
        data.train.images_B3HW,
        load_task_data(local, image_size=(4, 4), interpolation="bicubic").train.images_B3HW,
    )
    assert data.fingerprint == fingerprint_data(remote)
    assert path_exists(bucket)
    folders = [f"{bucket}/ok", f"{bucket}/scratch mark ü"]
    assert find_folders(f"{bucket}/*") == find_folders(f"{bucket}/") == folders
    assert find_folders("s3://data/*/s*") == folders[1:]
    assert find_folders("s3://nosuch/*") == []

    client = boto3.client("s3")
    client.put_object(Bucket="data", Key="line/ok/0.png", Body=b"")
    client.close()
    assert fingerprint_data(remote) != data.fingerprint
    with pytest.raises(DataError, match=r"^s3://data/line/ok/0.png: the file is empty"):
        load_task_data(remote, image_size=(4, 4), interpolation="bicubic")
    with pytest.raises(DataError, match="s3://nosuch/data: no such folder"):
        fingerprint_data(DataSource(path="s3://nosuch/data"))


def test_folders_that_came_meanwhile_are_found_by_one_listing(
    bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(find_folders(f"{bucket}/*")) == 2
    client = boto3.client("s3")
    for number in range(30):
        client.put_object(Bucket="data", Key=f"line/new-{number}/ok/0.png", Body=b"")
    client.close()
    caplog.clear()
    with caplog.at_level(logging.INFO, "werkzeug"):
        assert len(find_folders(f"{bucket}/*")) == 32
    (request,) = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    assert "GET /data?list-type=2" in request
