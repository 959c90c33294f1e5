"""Splits of data that names none: images set aside for validation and testing.

Pure: items in, items out. An image's rank depends on its path and the seed alone, so that neither the order
of listing nor the other images move it.
"""

import hashlib
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import replace

from ship.data.items import Item, SplitName
from ship.data.source import DataSource

__all__ = ["cut_splits"]


def cut_splits(items: Iterable[Item], source: DataSource) -> list[Item]:
    """Cut test and validation images out of the training images, class by class, where there are none yet.

    Test images are cut if the data names neither test nor validation images; validation images if it names
    none and ``val_fraction`` is above 0. A class gives at least one image to each split that is cut, as long
    as one is left for training. A group stays whole, with the class of most of its images.

    Returns:
        All items, sorted by path.
    """
    items = list(items)
    named = {item.split for item in items}
    wants_test = source.test_fraction > 0 and not named & {"test", "val"}
    wants_val = source.val_fraction > 0 and "val" not in named
    result = [item for item in items if item.split != "train"]
    for groups in _by_label(item for item in items if item.split == "train").values():
        left = deque(groups[name] for name in sorted(groups, key=lambda name: _rank(name, source.split_seed)))
        num_all = sum(map(len, left))
        if wants_test:
            result += _assign(_cut(left, num_all * source.test_fraction), "test")
        if wants_val:
            result += _assign(_cut(left, num_all * source.val_fraction), "val")
        result += [item for members in left for item in members]
    return sorted(result, key=lambda item: item.path)


def _by_label(items: Iterable[Item]) -> dict[str, dict[str, list[Item]]]:
    """Groups by label and name; without groups each image is one, named by its path."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.path if item.group is None else item.group].append(item)
    found: dict[str, dict[str, list[Item]]] = defaultdict(dict)
    for name, members in groups.items():
        counts = Counter(item.label for item in members)
        found[min(counts, key=lambda label: (-counts[label], label))][name] = members
    return found


def _rank(path: str, seed: int) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}:{path}".encode("utf-8", "surrogateescape")).digest(), path


def _cut(left: deque[list[Item]], wanted: float) -> list[Item]:
    """Take as many images, in whole groups, as long as one group is left."""
    taken: list[Item] = []
    while len(left) > 1 and len(taken) < max(1, math.floor(wanted + 0.5)):
        taken += left.popleft()
    return taken


def _assign(items: Iterable[Item], split: SplitName) -> list[Item]:
    return [replace(item, split=split) for item in items]
