"""The version that answers a request: in memory, being loaded, or refused. Its caller holds a lock."""

from orchestrator.serve.canary import choose_version
from orchestrator.serve.engine_api import Ask, Refusal
from orchestrator.serve.residency.champions import Champions
from orchestrator.serve.residency.loads import Loads, Pending, Precedence, refuse, refuse_idle
from orchestrator.serve.residency.prefetch import InAdvance
from orchestrator.serve.residency.prompt_memory import PromptMemory
from orchestrator.serve.residency.served import PromptRef, ServedVersion
from orchestrator.store.documents.catalog import CatalogEntry

__all__ = ["Finder", "send_on"]


class Finder:
    """Finds versions in memory, and begins loads of those that are asked for and not there.

    Args:
        champions: The wanted versions.
        memory: The prompts in memory.
        loads: Loads under way, and failures.
        in_advance: Loads that no request waits for.
        backbone: Fingerprint of the engine's backbone, if the endpoint has engines of others, too.
    """

    def __init__(
        self,
        champions: Champions,
        memory: PromptMemory,
        loads: Loads,
        in_advance: InAdvance,
        backbone: str | None = None,
    ) -> None:
        self._champions = champions
        self._memory = memory
        self._loads = loads
        self._in_advance = in_advance
        self._backbone = backbone

    def elsewhere(self, ref: PromptRef) -> str | None:
        """Backbone whose engine answers for a version, as the catalog or its artifact says; None for ours."""
        if self._backbone is None:
            return None
        failure = None if ref.backbone is not None else self._loads.failure(ref.key)
        backbone = ref.backbone if failure is None else failure.backbone
        return None if backbone == self._backbone else backbone

    def find(self, ask: Ask) -> ServedVersion | Refusal | Pending:
        """The version that answers a request, the load that will bring it into memory, or the refusal."""
        entry = self._champions.entry(ask.task)
        if entry is None:
            return self._look_at_idle(ask)
        if ask.version is not None or ask.is_background:
            ref = self._champions.ref(ask.task, ask.version or entry.version)
            if isinstance(ref, Refusal):
                return ref
            return self._glance(ref) if ask.is_background else self._obtain(ref)
        version = choose_version(ask.task, entry, ask.key)
        if version != entry.version:
            canary = self._champions.named(ask.task, version)
            if (served := self._memory.use(canary.key)) is not None:
                return served.named(version)
            home = self.elsewhere(canary)
            if home is not None and not ask.stays:
                return send_on(canary, home, is_lasting=False)
            # One that is not there yet, or will not be, costs no request its answer.
            self._in_advance.begin(canary, Precedence.SWAP, may_evict=True)
        return self._look_for_champion(ask, entry)

    def _look_at_idle(self, ask: Ask) -> ServedVersion | Refusal | Pending:
        """A version of a task without a champion, if the request names one that can be had."""
        if (idle := self._champions.idle(ask.task)) is None:
            return Refusal(reason="unknown_task", detail=f"task {ask.task!r} is not in the catalog")
        if idle.is_retired or ask.version is None or ask.is_background:
            return refuse_idle(ask.task, idle)
        ref = self._champions.ref(ask.task, ask.version)
        return ref if isinstance(ref, Refusal) else self._obtain(ref)

    def _look_for_champion(self, ask: Ask, entry: CatalogEntry) -> ServedVersion | Refusal | Pending:
        task = ask.task
        wanted = self._champions.wanted(task)
        current = self._champions.current(task) or wanted
        if (served := self._memory.use(wanted.key)) is not None:
            return served.named(wanted.version, entry.shadow)
        home = self.elsewhere(wanted)
        if home is not None and (not ask.stays or current.key not in self._memory):
            return send_on(wanted, home, is_lasting=entry.canary is None)
        if (served := self._memory.use(current.key)) is not None:
            self._in_advance.begin(wanted, Precedence.SWAP, may_evict=True)
            return served.named(current.version, entry.shadow)
        found = self._obtain(wanted, entry.shadow)
        if isinstance(found, Refusal) and current.key != wanted.key:
            return self._obtain(current, entry.shadow)
        return found

    def _obtain(self, ref: PromptRef, shadow_version: int | None = None) -> ServedVersion | Refusal | Pending:
        """The version in memory, or the load that will bring it there, or the refusal."""
        if (served := self._memory.use(ref.key)) is not None:
            return served.named(ref.version, shadow_version)
        if (home := self.elsewhere(ref)) is not None:
            return send_on(ref, home, is_lasting=True)
        if (failure := self._loads.hindrance(ref.key)) is not None:
            return refuse(ref, failure.text)
        load = self._loads.begin(ref, Precedence.URGENT, may_evict=True)
        return Pending(load=load, version=ref.version, shadow_version=shadow_version)

    def _glance(self, ref: PromptRef) -> ServedVersion | Refusal:
        """The version if it is in memory now; else it is loaded if there is room, without waiting."""
        if (served := self._memory.peek(ref.key)) is not None:
            return served.named(ref.version)
        if (home := self.elsewhere(ref)) is not None:
            return send_on(ref, home, is_lasting=True)
        self._in_advance.begin(ref, Precedence.IN_ADVANCE, may_evict=False)
        return refuse(ref, "it is not in memory, and is not waited for")


def send_on(ref: PromptRef, home: str, *, is_lasting: bool) -> Refusal:
    """The refusal of a request for a version that the engine of another backbone answers for."""
    return Refusal(
        reason="other_backbone",
        detail=f"version {ref.version} of task {ref.task!r} is of another backbone",
        backbone=home,
        is_lasting=is_lasting,
    )
