import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from orchestrator.store.objects.open import ObjectStore, open_objects
from orchestrator.store.objects.s3 import S3Objects

BUCKET = "prompts"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server on loopback that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The client of a store in an empty bucket there. Shared: making one takes boto3 half a second."""
    with pytest.MonkeyPatch.context() as patch:
        _set_environment(patch, s3_endpoint, tmp_path_factory.getbasetemp())
        client = S3Objects(f"s3://{BUCKET}")._client
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def s3_url(s3_client: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty place in that bucket; the environment leads there."""
    _set_environment(monkeypatch, s3_endpoint, tmp_path)
    return f"s3://{BUCKET}/{tmp_path.name}"


def _set_environment(patch: pytest.MonkeyPatch, endpoint: str, folder: Path) -> None:
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_CONFIG_FILE", str(folder / "none"))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))


@pytest.fixture(params=["local", "s3", "fsspec"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """Each kind of store in turn, empty."""
    if request.param == "local":
        yield open_objects(str(tmp_path / "a store"))
    elif request.param == "s3":
        s3 = open_objects(request.getfixturevalue("s3_url"))
        # Where the cached property keeps it.
        vars(s3)["_client"] = request.getfixturevalue("s3_client")
        yield s3
    else:
        yield open_objects(f"memory://{tmp_path.name}")
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


@pytest.fixture
def closed_port() -> int:
    """A port on loopback that no program listens on."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
