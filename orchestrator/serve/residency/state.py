"""States of the tasks of the catalog: the version that answers, the wanted one, and the problem."""

from collections.abc import Callable

from orchestrator.serve.engine_api import ServingState
from orchestrator.serve.residency.loads import LoadFailure
from orchestrator.serve.residency.served import Key, ServedVersion
from orchestrator.store.documents.catalog import CatalogEntry

__all__ = ["describe_served", "describe_task"]

# An engine looks each second.
_OLD_S = 30.0


def describe_served(num_served: int, catalog_age_s: float | None, num_lost: int = 0) -> str:
    """Number of tasks served, and a warning if tasks left the catalog or it is old."""
    detail = f"{num_served} tasks are served"
    if num_lost:
        detail += f", {num_lost} left the catalog and have not come back"
    if catalog_age_s is None or catalog_age_s < _OLD_S:
        return detail
    return f"{detail}, by a catalog that is {catalog_age_s:.0f} s old: it cannot be read now"


def describe_task(
    task: str,
    wanted: CatalogEntry,
    served: ServedVersion | None,
    failure: Callable[[Key], LoadFailure | None],
) -> ServingState:
    """The state of a task.

    Args:
        task: Its name.
        wanted: Its entry in the catalog.
        served: Its champion that is in memory, if one is.
        failure: Gives the failure of the last load of a prompt, if it failed.
    """
    return ServingState(
        task=task,
        version=served.version if served else None,
        digest=served.digest if served else None,
        rule=served.rule_digest if served else None,
        labels=served.labels if served else (),
        wanted_version=wanted.version,
        wanted_digest=wanted.digest,
        wanted_rule=wanted.rules.get(wanted.digest),
        problem=_find_problem(task, wanted, failure),
        canary=wanted.canary,
        shadow_version=wanted.shadow,
        others=tuple(sorted(wanted.others)),
        view=served.view if served else None,
    )


def _find_problem(
    task: str, wanted: CatalogEntry, failure: Callable[[Key], LoadFailure | None]
) -> str | None:
    """Problem of the version that is wanted, or else of its canary or shadow."""
    if (failed := failure((task, wanted.digest))) is not None:
        return failed.text
    canary = None if wanted.canary is None else wanted.canary.version
    beside = {"canary": canary, "shadow": wanted.shadow}
    for role, version in beside.items():
        if version is None:
            continue
        if (failed := failure((task, wanted.others[version]))) is not None:
            return f"{role} version {version}: {failed.text}"
    return None
