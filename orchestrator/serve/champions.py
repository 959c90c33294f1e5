"""What the catalog wants of each task, and which champion answers until that is in memory.

Its caller holds a lock. It knows names and digests only, and nothing of what is in memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from orchestrator.serve.served import Key, PromptRef
from orchestrator.store.catalog import CatalogEntry

__all__ = ["Champions"]


class Champions:
    """The wanted versions, and the current champions: behind the catalog while theirs is loaded, or fails.

    Args:
        pinned: Patterns of tasks whose champions stay in memory.
    """

    def __init__(self, pinned: Iterable[str]) -> None:
        self._pinned = tuple(pinned)
        self._wanted: Mapping[str, CatalogEntry] = {}
        self._current: dict[str, PromptRef] = {}

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._wanted))

    def take(self, entries: Mapping[str, CatalogEntry]) -> None:
        """Want this from now on."""
        self._wanted = dict(entries)
        self._current = {task: ref for task, ref in self._current.items() if task in self._wanted}

    def entry(self, task: str) -> CatalogEntry | None:
        """What the catalog says of a task; None if it is not there."""
        return self._wanted.get(task)

    def wanted(self, task: str) -> PromptRef:
        """The champion that a task of the catalog ought to have."""
        entry = self._wanted[task]
        return PromptRef(task=task, version=entry.version, digest=entry.digest)

    def current(self, task: str) -> PromptRef | None:
        """The champion that answers, or did before it gave way to others; None before the first."""
        return self._current.get(task)

    def crown(self, task: str) -> PromptRef | None:
        """Let the wanted champion answer; returns the one before it, if that is another prompt."""
        wanted, before = self.wanted(task), self._current.get(task)
        self._current[task] = wanted
        return None if before is None or before.key == wanted.key else before

    def is_named(self, key: Key) -> bool:
        """Whether the catalog has a prompt, or it answers until what the catalog wants is there."""
        task, digest = key
        entry, current = self._wanted.get(task), self._current.get(task)
        if entry is None:
            return False
        return digest in entry.versions.values() or (current is not None and current.digest == digest)

    def is_pinned(self, task: str) -> bool:
        """Whether a task's champion stays in memory."""
        return any(fnmatchcase(task, pattern) for pattern in self._pinned)

    def may_go(self, key: Key, loading: PromptRef) -> bool:
        """Whether a prompt may give way to one that is being loaded."""
        task, current = key[0], self._current.get(key[0])
        if current is None or current.key != key:
            return True
        # What answers for a task is not given up for a successor that may fail.
        return task != loading.task and not self.is_pinned(task)
