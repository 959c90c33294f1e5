"""Sizes of a sample of a data set's training pictures, read from their headers."""

from ship.data.folder import Folder
from ship.data.items import Listing
from ship.errors import DataError, ImageError
from ship.images import read_size

__all__ = ["sizes_of"]


def sizes_of(folder: Folder, listing: Listing, num: int = 64) -> list[tuple[int, int]]:
    """Width and height of training pictures spread evenly over their paths; of those that can be read.

    Args:
        folder: Where the data set is.
        listing: Its images.
        num: Pictures to read at most.
    """
    items = listing.of_split("train")
    sizes = []
    for place in range(min(num, len(items))):
        path = items[place * len(items) // min(num, len(items))].path
        try:
            sizes.append(read_size(folder.read(path)))
        except (DataError, ImageError):
            continue
    return sizes
