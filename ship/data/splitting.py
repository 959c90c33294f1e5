"""Splits of data that names none: images set aside for validation and testing.

Pure: items in, items out. An image's rank depends on its path and the seed alone, so that neither the order
of listing nor the other images move it.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from ship.data.items import Item, SplitName
from ship.data.source import DataSource

__all__ = ["cut_splits"]


def cut_splits(items: Iterable[Item], source: DataSource) -> list[Item]:
    """Cut test and validation images out of the training images, class by class, where there are none yet.

    Test images are cut if the data names neither test nor validation images; validation images if it names
    none and ``val_fraction`` is above 0. A class gives at least one image to each split that is cut, as long
    as one is left for training.

    Returns:
        All items, sorted by path.
    """
    items = list(items)
    named = {item.split for item in items}
    wants_test = source.test_fraction > 0 and not named & {"test", "val"}
    wants_val = source.val_fraction > 0 and "val" not in named
    result = [item for item in items if item.split != "train"]
    for members in _by_label(item for item in items if item.split == "train").values():
        ranked = sorted(members, key=lambda item: _rank(item.path, source.split_seed))
        num_test = _num_cut(len(ranked), len(ranked), source.test_fraction) if wants_test else 0
        num_val = _num_cut(len(ranked), len(ranked) - num_test, source.val_fraction) if wants_val else 0
        result += _assign(ranked[:num_test], "test")
        result += _assign(ranked[num_test : num_test + num_val], "val")
        result += ranked[num_test + num_val :]
    return sorted(result, key=lambda item: item.path)


def _by_label(items: Iterable[Item]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.label].append(item)
    return groups


def _rank(path: str, seed: int) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}:{path}".encode("utf-8", "surrogateescape")).digest(), path


def _num_cut(num_all: int, num_left: int, fraction: float) -> int:
    wanted = max(1, math.floor(num_all * fraction + 0.5))
    return max(0, min(wanted, num_left - 1))


def _assign(items: Iterable[Item], split: SplitName) -> list[Item]:
    return [replace(item, split=split) for item in items]
