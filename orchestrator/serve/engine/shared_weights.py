"""Cache of loaded backbones on this machine: engines map one file, and so share its memory.

One safetensors file a backbone, as it is after resampling, with its header and a digest of both as metadata.
The mapping is copy-on-write: no engine can change what another one sees. What goes wrong with the cache costs
memory and time, and nothing else.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from orchestrator.bounded_folder import BoundedFolder
from orchestrator.private_files import make_private_folder
from orchestrator.store.backbones import load_backbone_of
from ship.backbone import Backbone
from ship.backbone_spec import files_of
from ship.vit import timm

__all__ = ["WeightsCache"]

_HEADER, _DIGEST = "ship.header", "ship.digest"
_log = logging.getLogger(__name__)


class WeightsCache:
    """The cache. Threads and processes may share its folder.

    Args:
        folder: Folder of this user alone.
        limit_bytes: Most bytes that are kept.
        store: URL of the store, for a spec ``store:FINGERPRINT``.
    """

    def __init__(self, folder: Path, limit_bytes: int, store: str | None = None) -> None:
        self._store = store
        self._folder, self._files = folder, BoundedFolder(folder, limit_bytes)

    def load(self, spec: str, image_size: int | None = None) -> Backbone:
        """A backbone on the CPU, mapped from the cache, which it is put into if it is not there.

        Args:
            spec: See ``orchestrator.store.backbones.load_backbone_of``.
            image_size: Height and width of its input in pixels; None for its own.

        Raises:
            BackboneError: It is not kept, and cannot be loaded.
            StoreError: It is not kept, and the store does not give it.
        """
        try:
            name = f"{_identify(spec, image_size)}.safetensors"
            if (kept := self._map(name)) is not None:
                return kept
            # Engines that start together load it once.
            with self._locked():
                return self._map(name) or self._keep(name, spec, image_size)
        except OSError as error:
            _log.warning("weights of backbone %s are not shared: %s (SHIP_CACHE)", spec, error)
            return load_backbone_of(spec, self._store, image_size=image_size)

    def _keep(self, name: str, spec: str, image_size: int | None) -> Backbone:
        backbone = load_backbone_of(spec, self._store, image_size=image_size)
        weights = {key: value.contiguous() for key, value in backbone.vit.state_dict().items()}
        header = json.dumps(backbone.info.to_dict(), sort_keys=True)
        metadata = {_HEADER: header, _DIGEST: _digest(header, weights)}
        num_bytes = sum(value.nbytes for value in weights.values())
        self._files.keep(name, num_bytes, lambda path: save_file(weights, path, metadata))
        return self._map(name) or backbone

    def _map(self, name: str) -> Backbone | None:
        path = self._files.path(name)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            if _digest(metadata[_HEADER], weights) != metadata[_DIGEST]:
                raise ValueError("its digest is another one")
            arrays = {key: value.numpy() for key, value in weights.items()}
            backbone = Backbone.from_arrays(_read_header(metadata[_HEADER]), arrays)
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            _log.warning("%s is damaged (%s); the backbone is loaded again", path, error)
            self._files.drop(name)
            return None
        self._files.note_use(name)
        return backbone

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_folder(self._folder)
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # A share that has no locks: each engine loads it then.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _identify(spec: str, image_size: int | None) -> str:
    """Identity of what a spec names now: files that were changed are another backbone."""
    # A file that is not there has no entry, and loading says what is missing.
    found = [(str(path.resolve()), path.stat()) for path in files_of(spec) if path.exists()]
    files = [(path, facts.st_size, facts.st_mtime_ns, facts.st_ino) for path, facts in found]
    return hashlib.sha256(json.dumps([timm.__version__, spec, files, image_size]).encode()).hexdigest()


def _read_header(text: str) -> dict[str, Any]:
    header = json.loads(text)
    if not isinstance(header, dict):
        raise TypeError("its header is broken")
    return header


def _digest(header: str, weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for key, value in sorted(weights.items()):
        digest.update(f"\n{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()
