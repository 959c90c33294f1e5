"""Folders whose names are the classes.

A layout is not guessed where it could be another one: what looks like splits in an unknown spelling, or like
classes below something else, is refused with what it looks like. ``format: imagefolder`` says that the first
folders are the classes. Pictures that are left out are counted.
"""

import re
from collections.abc import Iterable

from ship.data.folder import Folder
from ship.data.folder_tree import FolderTree
from ship.data.items import Item, SplitName, as_label, find_split, is_image_name
from ship.data.passed_over import PassedOver, pass_over
from ship.errors import DataError

__all__ = ["class_images", "find_mask_folders", "list_imagefolder", "names_of", "pass_over_rest"]

# Folders of masks and depth maps, which data of inspection has beside its pictures; those of the second kind
# may as well be classes.
_SURE_MASKS = re.compile(r"ground[_-]?truth|gt", re.IGNORECASE)
_MASKS = re.compile(
    r"ground[_-]?truth|gt|masks?|annotations?|labels?|depth|xyz|pcd|seg|segmentations?|heatmaps?|anomaly_maps?",
    re.IGNORECASE,
)
_PICTURES = re.compile(r"rgb|images?|imgs?|pictures?|colou?r", re.IGNORECASE)
# Extensions that are those of no picture, whatever the file begins with.
_NO_PICTURE = re.compile(
    r"txt|jsonl?|xml|csv|tsv|md|rst|ya?ml|toml|ini|cfg|log|html?|pdf|docx?|xlsx?|py|sh|mat|npy|npz|pkl|pth?|onnx|"
    r"h5|zip|tar|gz|7z|rar|db|sqlite|bak|tmp|lnk",
    re.IGNORECASE,
)
_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NUM_HEAD = 16


def list_imagefolder(
    folder: Folder, tree: FolderTree, *, is_sure: bool = False
) -> tuple[list[Item], list[PassedOver]]:
    """``train/CLASS/**``, ``val/CLASS/**``, ``test/CLASS/**``, or one tree of ``CLASS/**``.

    One tree comes back as training images, to be split by ``cut_splits``.

    Args:
        folder: The folder.
        tree: What lies in it.
        is_sure: Whether the user has named this layout, so that folders below classes are no doubt.

    Raises:
        DataError: No class folders, a class without an image, splits that cannot be told apart, or folders
            that look like another layout.
    """
    roots = _split_roots(folder, tree, find_mask_folders(tree, ""))
    problems, items = [], []
    # Beside the folders of the splits, too.
    masked = [file for path in {"", *roots} for file in _files_of_masks(tree, path)]
    for root, split in roots.items():
        classes = sorted(tree.children(root) - find_mask_folders(tree, root))
        if not classes:
            problems.append(f"{folder.locate(root)}: expected one folder per class, found none")
        problems += _hidden_classes(folder, tree, root)
        problems += [] if is_sure else _doubts(folder, tree, root, classes)
        for name in classes:
            path = f"{root}/{name}" if root else name
            found, left_out = class_images(folder, tree, path)
            masked += left_out
            if not found:
                problems.append(f"{folder.locate(path)}: class {name!r} has no image")
            items += [Item(file, as_label(name), split) for file in found]
    if problems:
        raise DataError(problems)
    return items, [*pass_over("masks or depth maps", masked), *pass_over_rest(tree, items, masked)]


def class_images(folder: Folder, tree: FolderTree, path: str) -> tuple[list[str], list[str]]:
    """The pictures of a class folder, and files of masks beside or below them.

    A local file whose name does not tell what it is, is looked into.
    """
    masks = {name for name in tree.children(path) if _MASKS.fullmatch(name)}
    below = {name: tree.files_below(f"{path}/{name}") for name in masks}
    all_files = tree.files_below(path)
    in_masks = {file for files in below.values() for file in files}
    pictures = [file for file in all_files if file not in in_masks and _is_picture(folder, file)]
    if pictures:
        return pictures, sorted(in_masks)
    return [file for file in all_files if _is_picture(folder, file)], []


def find_mask_folders(tree: FolderTree, root: str) -> set[str]:
    """Folders beside those of the classes, or of the splits, that hold masks of their pictures."""
    names = tree.children(root)
    found = {
        name for name in names if _MASKS.fullmatch(name) and _holds_masks(tree, root, name, names - {name})
    }
    return found if names - found else set()


def _holds_masks(tree: FolderTree, root: str, name: str, others: set[str]) -> bool:
    """Whether a folder mirrors those beside it; one called ``mask`` may as well be one of two classes."""
    path = f"{root}/{name}" if root else name
    inside = tree.children(path)
    if inside and inside <= others | _grandchildren(tree, root, others):
        return True
    if not any(map(is_image_name, tree.files_below(path))):
        return True
    may_be = _SURE_MASKS.fullmatch(name) or (len(others) > 1 and name.casefold() in ("mask", "masks"))
    return bool(may_be) and _has_same_names(tree, root, path, others)


def _files_of_masks(tree: FolderTree, root: str) -> list[str]:
    names = find_mask_folders(tree, root)
    return [file for name in names for file in tree.files_below(f"{root}/{name}" if root else name)]


def pass_over_rest(
    tree: FolderTree,
    items: Iterable[Item],
    known: Iterable[str],
    outside: str = "pictures outside of the class folders",
) -> list[PassedOver]:
    """What a tree has besides the images.

    Args:
        tree: What lies in the folder.
        items: The images.
        known: Other files that are left out here, such as masks.
        outside: What pictures that are none of the images are.
    """
    used = {item.path for item in items}
    rest = tree.files - used - set(known)
    pictures = {file for file in rest if is_image_name(file)}
    return [
        *tree.passed_over,
        *pass_over("hidden files", tree.hidden - used),
        *pass_over(outside, pictures),
        *pass_over("files that are no pictures", rest - pictures),
    ]


def names_of(names: Iterable[str]) -> str:
    """The first names, for a message."""
    found = sorted(names)
    return ", ".join(found[:10]) + (", ..." if len(found) > 10 else "") or "nothing"


def _split_roots(folder: Folder, tree: FolderTree, masks: set[str]) -> dict[str, SplitName]:
    """The folder of each split; one tree is a single training split at the root."""
    children = tree.children() - masks
    splits = {name: split for name in children if (split := find_split(name)) is not None}
    others = children - set(splits)
    # A class may well be called `train`; it takes the company of another split to make it one.
    if "train" not in splits.values() or (others and len(splits) == 1):
        if splits and not others:
            raise DataError(f"{folder}: found {names_of(splits)} but no train folder")
        return {"": "train"}
    problems = []
    if others:
        problems.append(
            f"{folder}: expected only train, val and test folders beside {names_of(splits)}, also found "
            f"{names_of(others)}"
        )
    words = {"train": "training", "val": "validation", "test": "test"}
    for wanted, word in words.items():
        if len(several := [name for name, split in splits.items() if split == wanted]) > 1:
            problems.append(f"{folder}: expected one folder of {word} images, found {names_of(several)}")
    if problems:
        raise DataError(problems)
    return {name: splits[name] for name in sorted(splits)}


def _hidden_classes(folder: Folder, tree: FolderTree, root: str) -> list[str]:
    """A problem for each hidden folder with pictures beside the classes: it may be one of them."""
    prefix = f"{root}/" if root else ""
    hidden = {
        path[len(prefix) :].split("/")[0]
        for path in tree.hidden
        if path.startswith(f"{prefix}.") and "/" in path[len(prefix) :] and is_image_name(path)
    }
    return [
        f"{folder.locate(prefix + name)}: a hidden folder with pictures beside the class folders; rename it "
        "if it is a class, move it away if not"
        for name in sorted(hidden)
    ]


def _doubts(folder: Folder, tree: FolderTree, root: str, classes: list[str]) -> list[str]:
    """A problem if some class holds nothing but folders, and others have them, too, or its name is a split's:
    it may be no class.
    """
    below = {name: _plain_children(tree, f"{root}/{name}" if root else name) for name in classes}
    doubtful, are_shared = {}, True
    for name, inside in below.items():
        shared = {child for other, found in below.items() if other != name for child in found}
        if inside and (inside <= shared or find_split(name) is not None):
            doubtful[name] = inside
            are_shared = are_shared and inside <= shared
    if not doubtful:
        return []
    inside = set().union(*doubtful.values())
    shared_by = " that others have, too" if are_shared else ""
    looks = "splits" if all(map(find_split, inside)) else "the classes"
    return [
        f"{folder.locate(root)}: {names_of(doubtful)} hold no pictures but folders{shared_by} "
        f"({names_of(inside)}), which look like {looks}; name the folder to use, or a table of paths and "
        "labels, or set format: imagefolder if the first folders are the classes"
    ]


def _plain_children(tree: FolderTree, path: str) -> set[str]:
    """Folders with pictures in a class folder that has none of its own, without masks."""
    if any(map(is_image_name, tree.files_in(path))):
        return set()
    children = {
        child
        for child in tree.children(path)
        if not _MASKS.fullmatch(child) and any(map(is_image_name, tree.files_below(f"{path}/{child}")))
    }
    is_wrapped = len(children) == 1 and _PICTURES.fullmatch(next(iter(children))) is not None
    return set() if is_wrapped else children


def _grandchildren(tree: FolderTree, root: str, names: set[str]) -> set[str]:
    """Names of folders one level further down, such as the classes of splits."""
    return {child for name in names for child in tree.children(f"{root}/{name}" if root else name)}


def _has_same_names(tree: FolderTree, root: str, path: str, others: set[str]) -> bool:
    """Whether the files of a folder are named like pictures beside it: masks are named after them."""
    own = {_stem(file) for file in tree.files_below(path) if is_image_name(file)}
    theirs = {_stem(file) for name in others for file in tree.files_below(f"{root}/{name}" if root else name)}
    return bool(own) and own <= theirs


def _stem(file: str) -> str:
    stem = file.rpartition("/")[2].rpartition(".")[0].casefold()
    for suffix in ("_mask", "-mask", "_gt", "_label", "_seg"):
        stem = stem.removesuffix(suffix)
    return stem


def _is_picture(folder: Folder, path: str) -> bool:
    if is_image_name(path):
        return True
    _, dot, extension = path.rpartition("/")[2].rpartition(".")
    if not folder.is_local or (dot and _NO_PICTURE.fullmatch(extension)):
        return False
    head = folder.read_head(path, _NUM_HEAD)
    return head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
