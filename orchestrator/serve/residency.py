"""Which prompts are in memory, and how new ones take the place of old ones.

A served task is one immutable object: weights, labels, version and digest together. A request takes it once
and keeps it, so a swap can never mix the labels of one version with the weights of another, and the old
object lives until its last request is done.

It knows neither the store nor the backbone: a loader does.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from orchestrator.serve.engine_api import TaskState
from orchestrator.store.catalog import Catalog, CatalogEntry
from ship.errors import ArtifactError
from ship.slots import Slot

__all__ = ["Residency", "ServedTask"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServedTask:
    """One version of a task, ready to answer.

    Attributes:
        task: Its name.
        version: In the registry.
        digest: Of the artifact.
        labels: In the order of the scores.
        slot: The prompt on the device.
    """

    task: str
    version: int
    digest: str
    labels: tuple[str, ...]
    slot: Slot


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """Why a digest is not served. A final one is not tried again: an artifact's bytes never change."""

    digest: str
    text: str
    is_final: bool


class Residency:
    """The prompts in memory, kept as the catalog wants them. Threads may share it.

    Args:
        load: Makes a served task of a catalog entry. Whatever it raises is kept as the task's problem.
        num_loaders: Loads at a time.
    """

    def __init__(self, load: Callable[[str, CatalogEntry], ServedTask], num_loaders: int = 4) -> None:
        self._load = load
        self._num_loaders = num_loaders
        self._applying = threading.Lock()
        # Each is read without a lock; one assignment or one dict operation changes it.
        self._wanted: dict[str, CatalogEntry] = {}
        self._served: dict[str, ServedTask] = {}
        self._problems: dict[str, _Problem] = {}

    def get(self, task: str) -> ServedTask | None:
        """What is served for a task at this moment."""
        return self._served.get(task)

    def state(self, task: str) -> TaskState | None:
        """How a task of the catalog stands; None if it is not in the catalog."""
        wanted, served, problem = self._wanted.get(task), self._served.get(task), self._problems.get(task)
        if wanted is None:
            return None
        return TaskState(
            task=task,
            version=served.version if served else None,
            digest=served.digest if served else None,
            labels=served.labels if served else (),
            wanted_version=wanted.version,
            wanted_digest=wanted.digest,
            problem=problem.text if problem else None,
        )

    def states(self) -> list[TaskState]:
        """How all tasks of the catalog stand, by name."""
        found = (self.state(task) for task in sorted(self._wanted))
        return [state for state in found if state is not None]

    @property
    def num_served(self) -> int:
        """Tasks that can be answered for."""
        return len(self._served)

    @property
    def num_problems(self) -> int:
        """Tasks whose wanted version could not be loaded."""
        return len(self._problems)

    @property
    def can_retry(self) -> bool:
        """Whether a load failed that may work the next time."""
        return any(not problem.is_final for problem in list(self._problems.values()))

    def apply(self, catalog: Catalog) -> None:
        """Bring memory in line with the catalog; returns when every load is done or has failed.

        What is served goes on until the moment its successor is ready, and stays if that fails. Tasks that
        left the catalog are dropped. One call at a time, so that no digest is loaded twice.
        """
        with self._applying:
            self._wanted = dict(catalog.entries)
            for task in self._served.keys() - self._wanted.keys():
                del self._served[task]
            for task in self._problems.keys() - self._wanted.keys():
                del self._problems[task]
            due = [task for task in sorted(self._wanted) if self._is_due(task)]
            if due:
                with ThreadPoolExecutor(self._num_loaders, "ship-load") as loaders:
                    list(loaders.map(self._bring_in, due))

    def _is_due(self, task: str) -> bool:
        wanted, served, problem = self._wanted[task], self._served.get(task), self._problems.get(task)
        if served is not None and (served.version, served.digest) == (wanted.version, wanted.digest):
            # A rollback to what is served leaves nothing to complain of.
            self._problems.pop(task, None)
            return False
        return problem is None or problem.digest != wanted.digest or not problem.is_final

    def _bring_in(self, task: str) -> None:
        entry, served = self._wanted[task], self._served.get(task)
        try:
            if served is not None and served.digest == entry.digest:
                successor = replace(served, version=entry.version)
            else:
                successor = self._load(task, entry)
        # A boundary: whatever is wrong with one task's prompt, the others are served, and so is the old one.
        except Exception as error:
            text = str(error) or type(error).__name__
            is_final = isinstance(error, ArtifactError)
            self._problems[task] = _Problem(digest=entry.digest, text=text, is_final=is_final)
            _log.warning("task %s, version %d is not served: %s", task, entry.version, text)
        else:
            self._served[task] = successor
            self._problems.pop(task, None)
