"""Canaries and shadows: versions tried on real requests before promotion.

They are kept in MLflow, so that they outlive every process and show in its pages: aliases ``canary`` and
``shadow`` of the registered model, and the canary's share of the requests in the model's tag
``ship.canary_share``. One listing of models carries all three. An alias ``canary`` without a readable share
takes no requests.
"""

from collections.abc import Mapping

from orchestrator.errors import RegistryError
from orchestrator.names import model_name
from orchestrator.registry.registry import Registry
from orchestrator.registry.versions import CANARY, CANARY_SHARE_TAG, CHAMPION, SHADOW, Rollout, read_rollout
from orchestrator.store.catalog import CatalogEntry

__all__ = ["Rollouts", "make_entry"]


class Rollouts:
    """Starts and ends canaries and shadows of one registry.

    Every method raises ``RegistryDown`` when MLflow cannot be reached, ``RegistryError`` when it refuses or
    there is no such task.

    Args:
        registry: Names, versions and aliases.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def read(self, task: str) -> Rollout:
        """The canary and the shadow of a task."""
        return read_rollout(*self._registry.aliases_and_tags(task))

    def start_canary(self, task: str, version: int, share: float) -> Rollout:
        """Let a version take a share of the requests, above 0 and below 1, in place of the canary before it.

        There is a canary at every moment: the one before takes the new share until the alias has moved.

        Raises:
            RegistryError: It is the champion, or has no artifact of ours; or there is no champion.
        """
        self._check(task, version)
        # In this order: the version never takes another share than it is given.
        with self._registry.session.errors(f"set the canary's share of task {task!r}"):
            self._registry.session.client.set_registered_model_tag(
                model_name(task), CANARY_SHARE_TAG, repr(share)
            )
        self._registry.set_alias(task, CANARY, version)
        return self.read(task)

    def start_shadow(self, task: str, version: int) -> Rollout:
        """Ask a version beside the champion, in place of the shadow before it.

        Raises:
            RegistryError: It is the champion, or has no artifact of ours; or there is no champion.
        """
        self._check(task, version)
        self._registry.set_alias(task, SHADOW, version)
        return self.read(task)

    def stop_canary(self, task: str, version: int | None = None) -> Rollout:
        """Let the champion answer all requests; returns the rollout before.

        Args:
            task: Name of the task.
            version: Expected canary; None for any.

        Raises:
            RegistryError: Another version is the canary.
        """
        found = self._registry.aliases_and_tags(task)[0].get(CANARY)
        if None not in (version, found) and found != version:
            raise RegistryError(
                f"the canary of task {task!r} is version {found}, not {version}: nothing was changed; "
                f"`ship canary {task} --stop` ends it"
            )
        return self._stop(task, CANARY)

    def stop_shadow(self, task: str) -> Rollout:
        """Ask the champion alone; returns the rollout before."""
        return self._stop(task, SHADOW)

    def _stop(self, task: str, alias: str) -> Rollout:
        aliases, tags = self._registry.aliases_and_tags(task)
        if alias in aliases:
            self._registry.end_trial(task, alias)
        return read_rollout(aliases, tags)

    def _check(self, task: str, version: int) -> None:
        aliases, _ = self._registry.aliases_and_tags(task)
        champion = aliases.get(CHAMPION)
        if champion is None:
            raise RegistryError(
                f"task {task!r} has no champion to try a version beside; `ship promote {task} {version}` "
                "makes it the first"
            )
        if champion == version:
            raise RegistryError(
                f"version {version} of task {task!r} is its champion and answers already; name another one"
            )
        if self._registry.version(task, version).digest is None:
            raise RegistryError(
                f"version {version} of task {task!r} names no artifact of ours, so it cannot be served; name "
                "one that `ship tune` registered"
            )


def make_entry(
    aliases: Mapping[str, int], tags: Mapping[str, str], digests: Mapping[int, str | None]
) -> CatalogEntry | None:
    """A task's entry in the catalog; None if it has no champion with an artifact of ours.

    Args:
        aliases: Aliases of its model.
        tags: Tags of its model.
        digests: Digests of the versions that have an alias; None for versions registered by other programs.
    """
    known = {version: digest for version, digest in digests.items() if digest is not None}
    champion = aliases.get(CHAMPION)
    if champion is None or champion not in known:
        return None
    rollout = read_rollout(aliases, tags)
    digest = known.pop(champion)
    return CatalogEntry(
        version=champion,
        digest=digest,
        others=known,
        canary=rollout.canary if rollout.canary and rollout.canary.version in known else None,
        shadow=rollout.shadow if rollout.shadow in known else None,
    )
