"""What a run will need in the end, tried before anything is spent: places to write to, and addresses.

Nothing is left behind: what is written to try a place is removed from it, which a run has to be able to, too.
"""

import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orchestrator.cluster.reachable import check_reachable
from orchestrator.errors import ClusterError, ExecutionError, StoreError
from orchestrator.settings import Settings
from orchestrator.store.objects.open import find_folder
from orchestrator.store.objects.protocol import ObjectStore

__all__ = ["check_before_tuning"]

_logger = logging.getLogger(__name__)
_SQLITE = "sqlite:///"


def check_before_tuning(
    settings: Settings,
    objects: Callable[[], ObjectStore],
    environ: Mapping[str, str] = os.environ,
    reach: Callable[[str, str], None] = check_reachable,
) -> None:
    """Try store, home, cache, registry and cluster.

    A tracking server that does not answer stops nothing: its records wait in the spool.

    Args:
        settings: Where they are.
        objects: Opens the store.
        environ: The environment.
        reach: Tries an address.

    Raises:
        ExecutionError: Lists everything that cannot be used, with its cause.
    """
    problems = [*_find_unreachable(settings, environ, reach), *_find_unwritable(settings)]
    if not problems and find_folder(settings.store) is None:
        problems += _find_store_problems(objects)
    if problems:
        raise ExecutionError([f"{problem}; nothing was tuned" for problem in problems])


def _find_unreachable(
    settings: Settings, environ: Mapping[str, str], reach: Callable[[str, str], None]
) -> Iterator[str]:
    addresses = {"RAY_ADDRESS": settings.ray_address or ""}
    if settings.store.startswith("s3://"):
        name = "AWS_ENDPOINT_URL_S3" if environ.get("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
        addresses[name] = environ.get(name, "")
    for name, address in addresses.items():
        try:
            if address not in ("", "auto", "local"):
                reach(name, address)
        except ClusterError as error:
            yield str(error)
    if settings.tracking_uri.startswith(("http://", "https://")):
        try:
            reach("MLFLOW_TRACKING_URI", settings.tracking_uri)
        except ClusterError as error:
            _logger.warning("%s; the run goes on, and its records wait until MLflow is back", error)


def _find_unwritable(settings: Settings) -> Iterator[str]:
    places = {"SHIP_HOME": settings.home}
    if settings.cache_bytes:
        places["SHIP_CACHE"] = Path(settings.cache).expanduser()
    if (folder := find_folder(settings.store)) is not None:
        places["SHIP_STORE"] = folder
    if settings.tracking_uri.startswith(_SQLITE):
        places["MLFLOW_TRACKING_URI"] = Path(settings.tracking_uri.removeprefix(_SQLITE)).parent
    for name, place in places.items():
        try:
            _try_folder(place)
        except OSError as error:
            yield f"{name}: {place} cannot be written to: {error.strerror or error}"
    database = Path(settings.tracking_uri.removeprefix(_SQLITE))
    if settings.tracking_uri.startswith(_SQLITE) and database.exists() and not os.access(database, os.W_OK):
        yield f"MLFLOW_TRACKING_URI: {database} cannot be written to"


def _try_folder(folder: Path) -> None:
    """Write to a folder and remove it again; to the one above, where it is not made yet.

    Raises:
        OSError: It cannot be written to, or removed from.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".ship-try-") as file:
        file.write(b"0" * 4096)
        file.flush()
        os.fsync(file.fileno())


def _find_store_problems(objects: Callable[[], ObjectStore]) -> Iterator[str]:
    try:
        store = objects()
        key = f"tries/{uuid.uuid4().hex}"
        store.put_new(key, b"ship tune was here")
        store.delete(key)
    except StoreError as error:
        yield f"the store cannot be written to: {error}"
