"""Folders whose names are the classes: ImageFolder, and the layout of the MVTec inspection sets."""

from collections import Counter

from ship.data.folder import Folder, FolderTree
from ship.data.items import SPLIT_OF_NAME, Item, SplitName, is_image_name
from ship.errors import DataError

__all__ = ["is_mvtec", "list_imagefolder", "list_mvtec"]


def is_mvtec(tree: FolderTree) -> bool:
    """Whether ``train`` holds nothing but ``good`` and ``test`` holds several kinds."""
    return tree.children("train") == {"good"} and len(tree.children("test")) > 1


def list_imagefolder(folder: Folder, tree: FolderTree) -> list[Item]:
    """``train/CLASS/**``, ``val/CLASS/**``, ``test/CLASS/**``, or one tree of ``CLASS/**``.

    One tree comes back as training images, to be split by ``cut_splits``.

    Raises:
        DataError: No class folders, a class without an image, or splits that cannot be told apart.
    """
    roots = _split_roots(folder, tree)
    problems = []
    items: list[Item] = []
    for root, split in roots.items():
        classes = sorted(tree.children(root))
        if not classes:
            problems.append(f"{folder.locate(root)}: expected one folder per class, found none")
        for label in classes:
            path = f"{root}/{label}" if root else label
            found = _images(tree, path, label, split)
            if not found:
                problems.append(f"{folder.locate(path)}: class {label!r} has no image")
            items += found
    if problems:
        raise DataError(problems)
    return items


def list_mvtec(folder: Folder, tree: FolderTree) -> list[Item]:
    """``train/good`` and ``test/KIND`` pooled into one tree of classes, without the ``ground_truth`` masks.

    Made for anomaly detection, its training split knows one class only: as a classification task it is split
    anew, by ``cut_splits``.

    Raises:
        DataError: It is not laid out like that.
    """
    if not is_mvtec(tree):
        raise DataError(
            f"{folder}: expected train/good and test/ with a folder per kind (mvtec), found in train: "
            f"{_names(tree.children('train'))}; in test: {_names(tree.children('test'))}"
        )
    items = _images(tree, "train/good", "good", "train")
    for kind in sorted(tree.children("test")):
        items += _images(tree, f"test/{kind}", kind, "train")
    counts = Counter(item.label for item in items)
    if empty := sorted(tree.children("test") - set(counts)):
        raise DataError([f"{folder.locate(f'test/{kind}')}: class {kind!r} has no image" for kind in empty])
    return items


def _images(tree: FolderTree, path: str, label: str, split: SplitName) -> list[Item]:
    return [Item(file, label, split) for file in tree.files_below(path) if is_image_name(file)]


def _split_roots(folder: Folder, tree: FolderTree) -> dict[str, SplitName]:
    """The folder of each split; one tree is a single training split at the root."""
    children = tree.children()
    splits = {name for name in children if name in SPLIT_OF_NAME}
    others = children - splits
    # A class may well be called `train`; it takes the company of another split to make it one.
    if "train" not in splits or (others and len(splits) == 1):
        if splits and not others:
            raise DataError(f"{folder}: found {_names(splits)} but no train folder")
        return {"": "train"}
    problems = []
    if others:
        problems.append(f"{folder}: expected only train, val and test folders, also found {_names(others)}")
    if len(several := {name for name in splits if SPLIT_OF_NAME[name] == "val"}) > 1:
        problems.append(f"{folder}: expected one folder of validation images, found {_names(several)}")
    if problems:
        raise DataError(problems)
    return {name: SPLIT_OF_NAME[name] for name in sorted(splits)}


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "") or "nothing"
