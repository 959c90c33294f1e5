"""The lists of VTAB-1k: ``train800.txt``, ``val200.txt``, ``train800val200.txt``, ``test.txt``.

Each line is ``images/SPLIT/000001.jpg LABEL`` with labels from 0, split at the last space.
"""

from ship.data.folder import Folder
from ship.data.items import Item, SplitName
from ship.data.source import DataSource
from ship.errors import DataError

__all__ = ["is_vtab", "list_vtab"]

_TRAIN, _VAL, _BOTH, _TEST = "train800.txt", "val200.txt", "train800val200.txt", "test.txt"


def is_vtab(folder: Folder) -> bool:
    """Whether the lists of a VTAB-1k task lie in this folder."""
    return folder.is_file(_TEST) and (folder.is_file(_BOTH) or folder.is_file(_TRAIN))


def list_vtab(folder: Folder, source: DataSource) -> tuple[list[Item], tuple[str, ...]]:
    """Read the lists of one task.

    All 1,000 images train, as in the published protocol with fixed settings; with ``val_fraction`` above 0,
    or where the joint list is missing, 800 train and 200 validate, as in the search for settings.

    Returns:
        Items, and the labels ``"0"`` to the highest. A class may lack training images here: the thousand were
        drawn at random.

    Raises:
        DataError: A list is missing, or lines are wrong; lists every problem with its line.
    """
    lists: dict[str, SplitName] = {_TEST: "test"}
    if source.val_fraction > 0 or not folder.is_file(_BOTH):
        lists |= {_TRAIN: "train", _VAL: "val"}
    else:
        lists[_BOTH] = "train"
    items: list[Item] = []
    problems: list[str] = []
    first_place: dict[str, str] = {}
    for name, split in lists.items():
        for number, line in enumerate(_lines(folder, name, problems), start=1):
            if not line.strip():
                continue
            place = f"{folder.locate(name)}: line {number}"
            item = _parse(line, split, folder)
            if isinstance(item, str):
                problems.append(f"{place}: {item}")
            elif item.path in first_place:
                problems.append(f"{place}: path {item.path!r} was already in {first_place[item.path]}")
            else:
                first_place[item.path] = f"{name} line {number}"
                items.append(item)
    if problems:
        raise DataError(problems)
    return items, tuple(map(str, range(1 + max((int(item.label) for item in items), default=-1))))


def _lines(folder: Folder, name: str, problems: list[str]) -> list[str]:
    try:
        return folder.read(name).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        problems.append(f"{folder.locate(name)}: expected UTF-8 text: {error}")
    except DataError as error:
        problems += error.problems
    return []


def _parse(line: str, split: SplitName, folder: Folder) -> Item | str:
    """The line's item, or what is wrong with it."""
    path, _, label = line.rstrip().rpartition(" ")
    if not path or not (label.isascii() and label.isdecimal() and len(label) <= 6):
        return f"expected `PATH LABEL` with a label from 0, got {line[:200]!r}"
    relative = folder.relative(path)
    if relative is None:
        return f"path {path!r} leads out of {folder}"
    return Item(relative, str(int(label)), split)
