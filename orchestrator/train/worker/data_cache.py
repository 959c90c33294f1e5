"""Cache of decoded data sets on a node's own disk, for retries, resumptions and other settings.

Reading and decoding a thousand camera pictures takes longer than tuning on them. A file's name is a hash of
everything that its content follows from, so it is never stale; it is written whole or not at all, and several
workers read it at once. The least recently used files make room for new ones.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from orchestrator.bounded_folder import BoundedFolder
from ship.data import Split, TaskData
from ship.errors import ShipError
from ship.settings.view import DEFAULT_VIEW, View

__all__ = ["DataCache"]

logger = logging.getLogger(__name__)

# Part of every file's name: to be raised when the same settings would give other images, or files of before
# lack what is needed.
FORMAT_VERSION = "3"
_SPLITS = ("train", "val", "test")


class DataCache:
    """A folder of decoded data sets with a limit on its size.

    If it fails, data is read from its source.

    Args:
        folder: Folder on this node, made at the first write.
        limit_bytes: Limit on the size of all files; 0 keeps none.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._files = BoundedFolder(folder, limit_bytes)

    def load(
        self,
        fingerprint: str,
        image_size: tuple[int, int],
        interpolation: str,
        read: Callable[[], TaskData],
        view: View = DEFAULT_VIEW,
        *,
        allow_duplicates: bool = False,
        watch: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> TaskData:
        """The data set of this fingerprint, from the cache or from its source.

        Args:
            fingerprint: Expected fingerprint; other data is never kept under it.
            image_size: Height and width that images are decoded to.
            interpolation: Interpolation by which images are resized.
            read: Reads the data from its source.
            view: View that is asked for; the one that is found has its ``auto`` tiles settled.
            allow_duplicates: Whether ``read`` gives held-out images that are trained on, too.
            watch: Context of each read and write of the cache, by path.

        Raises:
            DataError: ``read`` raised it.
        """
        name = _file_name(fingerprint, image_size, interpolation, view, allow_duplicates)
        if self._files.limit_bytes <= 0:
            return read()
        path = self._files.path(name)
        with watch(str(path)):
            found = _read_data(path)
        if found is not None:
            self._files.note_use(name)
            return found
        data = read()
        if data.fingerprint == fingerprint:
            with watch(str(path)):
                self._keep(name, data)
        return data

    def _keep(self, name: str, data: TaskData) -> None:
        tensors, about = _to_tensors(data)
        num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        try:
            self._files.keep(
                name,
                num_bytes,
                lambda path: save_file(tensors, path, metadata={"about": json.dumps(about)}),
            )
        except (OSError, SafetensorError) as error:
            logger.warning("%s: decoded data cannot be cached: %s", self._files.path(name), error)


def _read_data(path: Path) -> TaskData | None:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        data = _from_tensors(tensors, about)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, ShipError) as error:
        logger.warning("%s: not a cached data set (%s); the data is read from its source again", path, error)
        path.unlink(missing_ok=True)
        return None
    return data


def _file_name(
    fingerprint: str, image_size: tuple[int, int], interpolation: str, view: View, allow_duplicates: bool
) -> str:
    identity: list[Any] = [FORMAT_VERSION, fingerprint, list(image_size), interpolation]
    if not view.is_default:
        identity.append(view.to_dict())
    if allow_duplicates:
        identity.append("allow_duplicates")
    return f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}.safetensors"


def _to_tensors(data: TaskData) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors: dict[str, torch.Tensor] = {}
    paths: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    contents: dict[str, list[str]] = {}
    for name in _SPLITS:
        split: Split | None = getattr(data, name)
        if split is not None:
            tensors |= {f"{name}.images": split.images_B3HW, f"{name}.labels": split.labels_B}
            paths[name] = list(split.paths)
            if split.groups is not None:
                groups[name] = list(split.groups)
            if split.contents is not None:
                contents[name] = list(split.contents)
    about = {"labels": list(data.labels), "fingerprint": data.fingerprint, "paths": paths, "groups": groups}
    about |= {"contents": contents, "view": data.view.to_dict(), "leaked": list(data.leaked)}
    return tensors, about


def _from_tensors(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> TaskData:
    groups, contents = about.get("groups", {}), about.get("contents", {})
    splits = {
        name: Split(
            images_B3HW=tensors[f"{name}.images"],
            labels_B=tensors[f"{name}.labels"],
            paths=tuple(paths),
            groups=tuple(groups[name]) if name in groups else None,
            contents=tuple(contents[name]) if name in contents else None,
        )
        for name, paths in about["paths"].items()
    }
    return TaskData(
        labels=tuple(about["labels"]),
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        fingerprint=about["fingerprint"],
        view=View.from_dict(about.get("view", {})),
        leaked=tuple(about["leaked"]),
    )
