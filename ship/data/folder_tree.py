"""What lies below a folder, sorted by what it is: folders, files, hidden files, and what is the system's."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from ship.data.passed_over import PassedOver, pass_over

__all__ = ["FolderTree", "is_system"]

# Folders and files that operating systems, storage devices and tools leave among pictures.
_SYSTEM = re.compile(
    r"@eadir|\.@__thumb|[@#$]recycle(\.bin)?|system volume information|__macosx|__pycache__|lost\+found|"
    r"(eh)?thumbs\.db|desktop\.ini|\.ds_store|\._.*|\.appledouble|\.spotlight-v100|\.fseventsd|\.temporaryitems|"
    r"\.thumbnails|\.trash(es|-.*)?|\.nfs.*|\.fuse_hidden.*|~\$.*|\.stfolder|\.snapshots?|\.zfs|\.cache|"
    r"\.ipynb_checkpoints|\.(git|svn|hg|dvc|idea|vscode)|\.(git|dvc)(ignore|attributes|keep)|\.keep|\.directory|"
    r"\.nomedia",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FolderTree:
    """Files and folders below a folder, as paths relative to it.

    Attributes:
        folders: Folders, without hidden ones and those of the system.
        files: Files, likewise.
        hidden: Files whose own name, or that of a folder above, starts with a dot.
        passed_over: What is neither: the system's, pipes, devices.
    """

    folders: frozenset[str]
    files: frozenset[str]
    hidden: frozenset[str] = frozenset()
    passed_over: tuple[PassedOver, ...] = ()
    _folders_in: Mapping[str, list[str]] = field(init=False, repr=False, compare=False)
    _files_in: Mapping[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort what there is by the folder that it lies in."""
        object.__setattr__(self, "_folders_in", _by_parent(self.folders))
        object.__setattr__(self, "_files_in", _by_parent(self.files))

    @classmethod
    def of(cls, folders: Iterable[str], files: Iterable[str], others: Iterable[str] = ()) -> Self:
        """The tree of everything that a walk has found.

        Args:
            folders: All folders.
            files: All files.
            others: What is neither.
        """
        system: set[str] = set()
        visible_folders: list[str] = []
        visible_files: list[str] = []
        hidden: list[str] = []
        for path in folders:
            if (part := _system_part(path)) is not None:
                system.add(part)
            elif not _is_hidden(path):
                visible_folders.append(path)
        for path in files:
            if (part := _system_part(path)) is not None:
                system.add(part)
            else:
                (hidden if _is_hidden(path) else visible_files).append(path)
        return cls(
            folders=frozenset(visible_folders),
            files=frozenset(visible_files),
            hidden=frozenset(hidden),
            passed_over=(
                *pass_over("folders and files of the system", system),
                *pass_over("pipes or devices", others),
            ),
        )

    def children(self, folder: str = "") -> set[str]:
        """Names of the folders directly in ``folder``."""
        return {path.rpartition("/")[2] for path in self._folders_in.get(folder, ())}

    def files_in(self, folder: str) -> list[str]:
        """The files directly in ``folder``, sorted."""
        return sorted(self._files_in.get(folder, ()))

    def files_below(self, folder: str) -> list[str]:
        """All files in ``folder`` and below, sorted."""
        found: list[str] = []
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            found += self._files_in.get(here, ())
            waiting += self._folders_in.get(here, ())
        return sorted(found)


def is_system(name: str) -> bool:
    """Whether a folder or file of that name is the system's, a storage device's or a tool's."""
    return _SYSTEM.fullmatch(name) is not None


def _is_hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path


def _system_part(path: str) -> str | None:
    """The path up to the first part that is of the system; None if none is."""
    parts = path.split("/")
    place = next((place for place, part in enumerate(parts) if is_system(part)), None)
    return None if place is None else "/".join(parts[: place + 1])


def _by_parent(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[path.rpartition("/")[0]].append(path)
    return found
