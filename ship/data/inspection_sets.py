"""Layouts of public inspection sets: MVTec AD, MVTec 3D-AD, MVTec LOCO AD and VisA.

Made for anomaly detection, their training split knows one class only: as a classification task they are
pooled, to be split anew by ``cut_splits``.
"""

from collections import Counter

from ship.data.folder import Folder
from ship.data.folder_tree import FolderTree
from ship.data.imagefolder import class_images, find_mask_folders, names_of, pass_over_rest
from ship.data.items import Item, as_label
from ship.data.passed_over import PassedOver, pass_over
from ship.errors import DataError

__all__ = ["find_visa", "is_mvtec", "list_mvtec", "list_visa"]

_Found = tuple[list[Item], list[PassedOver]]


def is_mvtec(tree: FolderTree) -> bool:
    """Whether ``train`` holds nothing but ``good``, and ``test`` several kinds."""
    return tree.children("train") == {"good"} and len(tree.children("test")) > 1


def list_mvtec(folder: Folder, tree: FolderTree) -> _Found:
    """``train/good``, ``validation/good`` (LOCO) and ``test/KIND``, without masks and depth maps.

    Raises:
        DataError: It is not laid out like that.
    """
    if not is_mvtec(tree):
        raise DataError(
            f"{folder}: expected train/good and test/ with a folder per kind (mvtec), found in train: "
            f"{names_of(tree.children('train'))}; in test: {names_of(tree.children('test'))}"
        )
    parts = [part for part in ("train", "validation", "test") if part in tree.children()]
    return _pool(folder, tree, {f"{part}/{kind}": kind for part in parts for kind in tree.children(part)})


def find_visa(tree: FolderTree) -> str | None:
    """Where ``Images`` with a folder per kind lies beside ``Masks``, in VisA; None if nowhere."""
    for root in ("", "Data"):
        names = tree.children(root)
        inside = tree.children(f"{root}/Images" if root else "Images")
        if {"Images", "Masks"} <= names and inside <= {"Normal", "Anomaly"} and len(inside) == 2:
            return root
    return None


def list_visa(folder: Folder, tree: FolderTree) -> _Found:
    """``Images/Normal`` and ``Images/Anomaly``, in the folder or in its ``Data``, without ``Masks``.

    Raises:
        DataError: It is not laid out like that.
    """
    root = find_visa(tree)
    if root is None:
        raise DataError(
            f"{folder}: expected Images/Normal, Images/Anomaly and Masks, or these in Data (visa), found "
            f"{names_of(tree.children())}"
        )
    images = f"{root}/Images" if root else "Images"
    return _pool(folder, tree, {f"{images}/{kind}": kind for kind in tree.children(images)})


def _pool(folder: Folder, tree: FolderTree, kind_of: dict[str, str]) -> _Found:
    items: list[Item] = []
    folders = [*find_mask_folders(tree, ""), *(f"Data/{name}" for name in find_mask_folders(tree, "Data"))]
    masked = [file for path in folders for file in tree.files_below(path)]
    for path, kind in sorted(kind_of.items()):
        found, left_out = class_images(folder, tree, path)
        items += [Item(file, as_label(kind), "train") for file in found]
        masked += left_out
    counts = Counter(item.label for item in items)
    if empty := sorted(path for path, kind in kind_of.items() if as_label(kind) not in counts):
        raise DataError([f"{folder.locate(path)}: class {kind_of[path]!r} has no image" for path in empty])
    return items, [*pass_over("masks or depth maps", masked), *pass_over_rest(tree, items, masked)]
