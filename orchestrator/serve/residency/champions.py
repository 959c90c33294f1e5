"""Wanted versions of each task, and the champions that answer until those are in memory.

Its caller holds a lock. It knows names and digests only, and nothing of what is in memory.
"""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase

from orchestrator.serve.engine_api import Refusal
from orchestrator.serve.residency.served import Key, PromptRef
from orchestrator.store.documents.catalog import Catalog, CatalogEntry, IdleTask

__all__ = ["Champions"]


class Champions:
    """The wanted versions, and the current champions: behind the catalog while theirs is loaded, or fails.

    Args:
        pinned: Patterns of tasks whose champions stay in memory.
    """

    def __init__(self, pinned: Iterable[str]) -> None:
        self._pinned = tuple(pinned)
        self._wanted: dict[str, CatalogEntry] = {}
        self._idle: dict[str, IdleTask] = {}
        self._current: dict[str, PromptRef] = {}
        self._lost: set[str] = set()
        self._backbone_of: Callable[[str], str | None] = lambda digest: None

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._wanted))

    @property
    def num_lost(self) -> int:
        """Tasks that were wanted, and are no more, without those that were retired."""
        return len(self._lost)

    def note_backbones(self, catalog: Catalog) -> None:
        """Know backbones of artifacts by this catalog from now on."""
        self._backbone_of = catalog.backbone_of

    def changed(self, catalog: Catalog) -> list[str]:
        """Tasks, by name, of which something else is wanted than until now. Reads only: it needs no lock."""
        known = {**self._wanted, **self._idle}
        wanted = {**catalog.entries, **catalog.idle}
        gone = [task for task in known if task not in wanted]
        return sorted(gone + [task for task, found in wanted.items() if known.get(task) != found])

    def is_lost_by(self, catalog: Catalog, task: str) -> bool:
        """Whether a task that is wanted now is not by a catalog, and was not retired. Reads only, too."""
        idle = catalog.idle.get(task)
        return task in self._wanted and task not in catalog.entries and (idle is None or not idle.is_retired)

    def take(self, task: str, found: CatalogEntry | IdleTask | None) -> set[Key]:
        """Want this of a task from now on, or nothing; returns its prompts that are wanted no more."""
        before = self.prompts(task)
        self._idle.pop(task, None)
        if isinstance(found, CatalogEntry):
            self._wanted[task] = found
            self._lost.discard(task)
            return before - self.prompts(task)
        if self._wanted.pop(task, None) is not None:
            self._lost.add(task)
        self._current.pop(task, None)
        if found is not None:
            self._idle[task] = found
            if found.is_retired:
                self._lost.discard(task)
        return before - self.prompts(task)

    def entry(self, task: str) -> CatalogEntry | None:
        """Entry of a task in the catalog; None if it is not there."""
        return self._wanted.get(task)

    def idle(self, task: str) -> IdleTask | None:
        """A registered task without a champion; None of any other."""
        return self._idle.get(task)

    def wanted(self, task: str) -> PromptRef:
        """The champion that a task of the catalog ought to have."""
        return self.named(task, self._wanted[task].version)

    def named(self, task: str, version: int) -> PromptRef:
        """A version that the catalog names of a task."""
        standing = self._wanted.get(task) or self._idle[task]
        digest = _digest(standing, version)
        assert digest is not None, "only versions of the catalog are looked up"
        return PromptRef(
            task=task,
            version=version,
            digest=digest,
            rule=standing.rules.get(digest),
            backbone=self._backbone_of(digest),
        )

    def current(self, task: str) -> PromptRef | None:
        """The champion that answers, or did before it gave way to others; None before the first."""
        return self._current.get(task)

    def ref(self, task: str, version: int) -> PromptRef | Refusal:
        """A version of a task of the catalog, with a champion or without, if it can be had."""
        standing, current = self._wanted.get(task) or self._idle[task], self._current.get(task)
        if _digest(standing, version) is not None:
            return self.named(task, version)
        versions = set(standing.versions)
        if current is not None:
            # It answers, so it can be asked for, whatever its aliases are now.
            if current.version == version:
                return current
            versions.add(current.version)
        had = ", ".join(map(str, sorted(versions)))
        detail = f"version {version} of task {task!r} cannot be had; these can: {had or 'none'}"
        return Refusal(reason="other_version", detail=detail)

    def crown(self, task: str) -> PromptRef | None:
        """Let the wanted champion answer; returns the one before it, if that is another prompt."""
        wanted, before = self.wanted(task), self._current.get(task)
        self._current[task] = wanted
        return None if before is None or before.key == wanted.key else before

    def prompts(self, task: str) -> set[Key]:
        """Prompts that the catalog names of a task, and the one that answers until its champion is there."""
        entry, current = self._wanted.get(task), self._current.get(task)
        if entry is None:
            idle = self._idle.get(task)
            return set() if idle is None else {(task, digest) for digest in idle.versions.values()}
        named = {(task, digest) for digest in entry.versions.values()}
        return named if current is None else named | {current.key}

    def is_named(self, key: Key) -> bool:
        """Whether a prompt is one of these."""
        return key in self.prompts(key[0])

    def wants_rule(self, ref: PromptRef) -> bool:
        """Whether the catalog wants this decision rule of a prompt, or none other."""
        standing = self._wanted.get(ref.task) or self._idle.get(ref.task)
        if standing is None or ref.digest not in standing.versions.values():
            return True
        return standing.rules.get(ref.digest) == ref.rule

    def is_spare(self, key: Key) -> bool:
        """Whether a prompt is no champion, canary or shadow: it only answers requests for its number."""
        task, digest = key
        entry, current = self._wanted.get(task), self._current.get(task)
        if current is not None and current.digest == digest:
            return False
        if entry is None:
            return True
        wanted = [entry.version, entry.shadow, None if entry.canary is None else entry.canary.version]
        return digest not in {entry.versions[version] for version in wanted if version is not None}

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


def _digest(standing: CatalogEntry | IdleTask, version: int) -> str | None:
    """Digest of a version; without a mapping of all versions, as each request asks for one."""
    if isinstance(standing, IdleTask):
        return standing.versions.get(version)
    return standing.digest if version == standing.version else standing.others.get(version)
