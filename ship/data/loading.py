"""From a source to tensors: every image is read and decoded once, and kept as uint8.

An image that cannot be used is never passed over: all of them are named in one error, each with its cause.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch

from ship.data.duplicates import is_taken_as_it_is, refuse_duplicates
from ship.data.fingerprint import combine_fingerprint, remote_tags
from ship.data.folder import Folder
from ship.data.items import Item, Listing, SplitName
from ship.data.listing import open_listing
from ship.data.pixel_copies import leave_out_leaked
from ship.data.sizes import sizes_of
from ship.data.source import DataSource
from ship.data.task_data import Split, TaskData
from ship.errors import DataError, ImageError
from ship.images import decode_image
from ship.settings.view import DEFAULT_VIEW, MAX_PIXELS, View

__all__ = ["load_in_parts", "load_task_data"]

_PART = 256


def load_task_data(
    source: DataSource,
    *,
    image_size: tuple[int, int],
    interpolation: str,
    view: View = DEFAULT_VIEW,
    max_pixels: int = MAX_PIXELS,
    num_threads: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
    watch: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> TaskData:
    """Load a data set into memory.

    Args:
        source: The data set.
        image_size: Height and width in pixels, the backbone's.
        interpolation: Filter by which images are resized, the backbone's; see ``ship.images``.
        view: Part of each picture that is looked at, and its tiles; ``auto`` tiles are settled here, by the
            training pictures.
        max_pixels: Refuse pictures with more pixels than this.
        num_threads: Images that are read and decoded at once.
        on_progress: Called in this thread with images done and images in all.
        watch: Context of each operation, in any thread, by the path or URL that is listed or read: so that a
            caller can tell slow from stuck, and where.

    Returns:
        ``3 * H * W`` bytes a tile of an image, all splits.

    Raises:
        DataError: Lists every problem of the layout, or every image that is missing, cannot be decoded, or
            lies in two splits; or all images of a split are trained on.
        ConfigError: ``interpolation`` is unknown.
    """
    with watch(source.path):
        folder, listing = open_listing(source)
    with watch(source.path):
        if view.tiles == "auto" and (sizes := sizes_of(folder, listing)):
            view = view.resolved(sizes, image_size)
    loader = _Loader(folder, image_size, interpolation, view, max_pixels, listing, watch)
    with watch(source.path):
        # Before reading: a file that changes while it is loaded then shows up as another fingerprint.
        tags = {} if folder.is_local else remote_tags(folder, listing)
    loader.run(num_threads, on_progress)
    refuse_duplicates(source, listing, loader.sha256_by_path)
    tags = tags or loader.sha256_by_path
    data = TaskData(
        labels=listing.labels,
        train=loader.split("train", tags),
        val=loader.split("val", tags) if listing.num_of_split["val"] else None,
        test=loader.split("test", tags) if listing.num_of_split["test"] else None,
        fingerprint=combine_fingerprint(source, listing, tags),
        view=loader.view,
    )
    return data if is_taken_as_it_is(source, listing) else leave_out_leaked(data)


def load_in_parts(
    folder: Folder,
    listing: Listing,
    *,
    image_size: tuple[int, int],
    interpolation: str,
    view: View = DEFAULT_VIEW,
    max_pixels: int = MAX_PIXELS,
    num_threads: int = 4,
) -> Iterator[Split]:
    """Load the images of a listing a few hundred at a time, in its order.

    Args:
        folder: Folder that its paths are relative to.
        listing: The images; their splits play no part.
        image_size: Height and width in pixels, the backbone's.
        interpolation: Filter by which images are resized, the backbone's.
        view: Part of each picture that is looked at, and its tiles; never ``auto``.
        max_pixels: Refuse pictures with more pixels than this.
        num_threads: Images that are read and decoded at once.

    Raises:
        DataError: Lists every image that is missing or cannot be decoded; after the first of these, no more
            are handed out.
    """
    problems: list[str] = []
    for start in range(0, len(listing.items), _PART):
        part = tuple(replace(item, split="test") for item in listing.items[start : start + _PART])
        listed = replace(listing, items=part)
        loader = _Loader(
            folder, image_size, interpolation, view, max_pixels, listed, lambda path: nullcontext()
        )
        try:
            loader.run(num_threads, None)
        except DataError as error:
            problems += error.problems
        if not problems:
            yield loader.split("test")
    if problems:
        raise DataError(problems)


@dataclass
class _Loader:
    folder: Folder
    image_size: tuple[int, int]
    interpolation: str
    view: View
    max_pixels: int
    listing: Listing
    watch: Callable[[str], AbstractContextManager[object]]
    sha256_by_path: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Allocate one tensor a split; threads fill its rows."""
        if self.view.tiles == "auto":
            # No picture could be read, which ``run`` will tell.
            self.view = replace(self.view, tiles="1x1")
        tiles = (self.view.num_tiles,) if self.view.num_tiles > 1 else ()
        self._items: dict[SplitName, tuple[Item, ...]] = {}
        self._images: dict[SplitName, torch.Tensor] = {}
        for split in ("train", "val", "test"):
            items = self.listing.of_split(split)
            self._items[split] = items
            self._images[split] = torch.empty((len(items), *tiles, 3, *self.image_size), dtype=torch.uint8)

    def run(self, num_threads: int, on_progress: Callable[[int, int], None] | None) -> None:
        """Fill all tensors.

        Raises:
            DataError: Lists every image that cannot be used.
        """
        jobs = [(split, row) for split, items in self._items.items() for row in range(len(items))]
        problems: list[str] = []
        pool = ThreadPoolExecutor(max(1, num_threads))
        try:
            for num_done, found in enumerate(pool.map(self._load, jobs), start=1):
                problems += found
                if on_progress is not None:
                    on_progress(num_done, len(jobs))
        finally:
            # After an error or an interrupt, what has not begun is not worth waiting for.
            pool.shutdown(cancel_futures=True)
        if problems:
            raise DataError(problems)

    def split(self, name: SplitName, tags: Mapping[str, str] | None = None) -> Split:
        """One split, once ``run`` is through; ``tags`` tell the content of each image, by path."""
        items = self._items[name]
        groups = tuple(str(item.group) for item in items)
        return Split(
            images_B3HW=self._images[name],
            labels_B=_indices(items, self.listing.labels),
            paths=tuple(item.path for item in items),
            groups=groups if all(item.group is not None for item in items) else None,
            contents=None if tags is None else tuple(tags[item.path] for item in items),
        )

    def _load(self, job: tuple[SplitName, int]) -> tuple[str, ...]:
        """Fill one row; returns what is wrong with its image."""
        split, row = job
        path = self._items[split][row].path
        try:
            with self.watch(self.folder.locate(path)):
                content = self.folder.read(path)
                self._images[split][row] = decode_image(
                    content,
                    size=self.image_size,
                    interpolation=self.interpolation,
                    max_pixels=self.max_pixels,
                    view=self.view,
                )
        except DataError as error:
            return error.problems
        except ImageError as error:
            return (f"{self.folder.locate(path)}: {error}",)
        self.sha256_by_path[path] = hashlib.sha256(content).hexdigest()
        return ()


def _indices(items: Iterable[Item], labels: tuple[str, ...]) -> torch.Tensor:
    index_by_label = {label: index for index, label in enumerate(labels)}
    return torch.tensor([index_by_label[item.label] for item in items], dtype=torch.int64)
