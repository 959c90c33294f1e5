"""Sizes of a sample of a data set's training pictures, read from their headers."""

from ship.data.folder import Folder
from ship.data.items import Listing
from ship.data.listing import open_listing
from ship.data.source import DataSource
from ship.errors import DataError, ImageError
from ship.images import read_size

__all__ = ["sample_sizes", "sizes_of"]


def sample_sizes(source: DataSource, num: int = 64) -> list[tuple[int, int]]:
    """Width and height of training pictures spread evenly over their paths; of those that can be read.

    Args:
        source: The data set.
        num: Pictures to read at most.

    Raises:
        DataError: Lists every problem of its layout.
    """
    return sizes_of(*open_listing(source), num)


def sizes_of(folder: Folder, listing: Listing, num: int = 64) -> list[tuple[int, int]]:
    """The same, of a data set that was listed."""
    items = listing.of_split("train")
    sizes = []
    for place in range(min(num, len(items))):
        path = items[place * len(items) // min(num, len(items))].path
        try:
            sizes.append(read_size(folder.read(path)))
        except (DataError, ImageError):
            continue
    return sizes
