"""Pictures behind a version's held-out answers, read again from its data and shown as thumbnails.

A picture is shown only if its pixels are those that the version was measured with: the digests in its
held-out list say so, whatever is at the data's place today, or whatever place was written down. What is
shown is drawn anew, never the file itself.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch

from orchestrator.errors import RegistryError
from orchestrator.registry.evidence import Evidence
from orchestrator.registry.registry import Registry
from orchestrator.registry.runs import RunLog
from ship.artifact.evidence import draw_thumbnail
from ship.data import DataSource
from ship.data.folder import Folder
from ship.data.listing import open_images
from ship.data.paths import normalise
from ship.data.pixel_copies import pixel_digest
from ship.errors import ConfigError, DataError, ImageError, ShipError
from ship.images.decoding import decode_pixels
from ship.settings.view import MAX_PIXELS

__all__ = ["HeldOutPictures", "Picture", "find_source"]

PictureState = Literal["same", "changed", "gone", "unknown"]
MAX_PICTURE_BYTES = 64 << 20
THUMBNAIL_SIDE = 256
# Pictures that are decoded at once, each of which may take a gigabyte.
_NUM_DECODED, _NUM_FOLDERS = 2, 16


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A held-out picture.

    Attributes:
        state: ``same`` as when it was measured; ``changed`` since; ``gone``, or no longer to be read; or
            ``unknown``: nothing says where it lies.
        detail: What is wrong, for people; empty of one that is the same.
        jpeg: Thumbnail of the pixels that were measured; None if there is none.
        content: The file's bytes; None unless it is the same.
        pixels: What the network sees, uint8, ``3,H,W`` or ``T,3,H,W``; None unless it is the same.
    """

    state: PictureState
    detail: str = ""
    jpeg: bytes | None = None
    content: bytes | None = None
    pixels: torch.Tensor | None = None


def find_source(registry: Registry, evidence: Evidence, task: str) -> DataSource:
    """The data that a version was tuned on, as its run in MLflow names it.

    Raises:
        RegistryError: It is not on record.
    """
    version = f"version {evidence.version} of task {task!r}"
    run_id = registry.version(task, evidence.version).run_id
    data = None if run_id is None else RunLog(registry.session).origin(run_id)[0]
    if data is None or not data.source:
        raise RegistryError(f"where the data of {version} lies is not on record: it was not tuned here")
    if data.fingerprint != evidence.card.data_fingerprint:
        raise RegistryError(f"the data on record for {version} is another than the one it was tuned on")
    try:
        return DataSource.from_dict({**data.settings, "path": data.source})
    except (ConfigError, TypeError) as error:
        raise RegistryError(f"the data on record for {version} cannot be opened: {error}") from error


class HeldOutPictures:
    """Reads held-out pictures; threads may share it.

    Args:
        registry: Tells where the data lies.
        max_bytes: Largest file that is read.
        max_pixels: Pixels of the largest picture that is decoded.
    """

    def __init__(
        self, registry: Registry, *, max_bytes: int = MAX_PICTURE_BYTES, max_pixels: int = MAX_PIXELS
    ) -> None:
        self._registry, self._max_bytes, self._max_pixels = registry, max_bytes, max_pixels
        self._folders: OrderedDict[str, Folder] = OrderedDict()
        self._lock, self._turns = threading.Lock(), threading.BoundedSemaphore(_NUM_DECODED)

    def read(self, task: str, evidence: Evidence, place: int) -> Picture:
        """The picture at a place of a version's held-out list.

        Args:
            task: Name of the task.
            evidence: Held-out answers of the version.
            place: Place of the picture there; nothing else is ever read.

        Raises:
            RegistryError: There is no such place.
        """
        if not 0 <= place < len(evidence.answers):
            raise RegistryError(
                f"version {evidence.version} of task {task!r} has {len(evidence.answers)} held-out pictures "
                f"on record, none at place {place}"
            )
        kept = evidence.answers.thumbnails.get(place)
        try:
            folder = self._folder(task, evidence)
        except RegistryError as error:
            return Picture(state="unknown", detail=str(error), jpeg=kept)
        except DataError as error:
            return Picture(state="gone", detail=str(error), jpeg=kept)
        with self._turns:
            return self._decode(folder, evidence, place, kept)

    def _decode(self, folder: Folder, evidence: Evidence, place: int, kept: bytes | None) -> Picture:
        path, card = evidence.answers.paths[place], evidence.card
        height, width = card.backbone["image_size"]
        try:
            if normalise(path) != path:
                raise DataError(f"{path!r} leads out of the data")
            content = folder.read_bounded(path, self._max_bytes)
        except DataError as error:
            return Picture(state="gone", detail=str(error), jpeg=kept)
        try:
            pixels = decode_pixels(
                content,
                size=(height, width),
                interpolation=card.backbone["interpolation"],
                max_pixels=self._max_pixels,
                view=card.view,
            )
        except ImageError as error:
            return Picture(state="changed", detail=f"{folder.locate(path)}: {error}", jpeg=kept)
        image = torch.from_numpy(pixels)
        if pixel_digest(image) != evidence.answers.digests[place]:
            detail = f"{folder.locate(path)}: another picture than the one that was measured"
            return Picture(state="changed", detail=detail, jpeg=kept)
        jpeg = draw_thumbnail(image, card.view, THUMBNAIL_SIDE)
        return Picture(state="same", jpeg=jpeg, content=content, pixels=image)

    def _folder(self, task: str, evidence: Evidence) -> Folder:
        """The folder of a version's data, opened once."""
        with self._lock:
            if (known := self._folders.get(evidence.digest)) is not None:
                self._folders.move_to_end(evidence.digest)
                return known
        source = find_source(self._registry, evidence, task)
        try:
            folder = open_images(source)
        except ShipError as error:
            raise DataError(str(error)) from error
        with self._lock:
            self._folders[evidence.digest] = folder
            while len(self._folders) > _NUM_FOLDERS:
                self._folders.popitem(last=False)
        return folder
