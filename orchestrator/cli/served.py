"""What endpoints are told to serve, beside what the registry says: after a promotion, and in listings."""

import sys
from typing import TYPE_CHECKING

from orchestrator.cli import tables
from orchestrator.cli.output import EXIT_WAITING, Output
from orchestrator.registry.fleet import Catalogued, read_catalogued
from orchestrator.registry.versions import name_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.registry.versions import Promotion, TaskInfo
    from orchestrator.store.documents.catalog import Catalog

__all__ = ["find_served", "print_promotion", "rollout_problem"]

_MAX_LOOKED_AT = 20


def print_promotion(output: Output, promotion: "Promotion", as_json: bool) -> None:
    """Say what serves now; a promotion that waits for an approval ends the command with its status."""
    from orchestrator.registry.catalog_writer import serve_now

    task, before = promotion.task, "nothing"
    if promotion.from_version:
        before = f"version {promotion.from_version}"
    served = serve_now(output.prompt_store(), task)
    if as_json:
        output.print_json(tables.promotion_json(promotion, served))
    elif promotion.waits:
        output.print_line(
            f"{task}: version {promotion.to_version} waits for an approval, and {before} serves on; another "
            f"person makes it serve: `ship approve {task}`.",
        )
    elif served.problem is None:
        output.print_line(f"{task}: version {promotion.to_version} serves now, {before} did before.")
    else:
        output.print_line(
            f"{task}: version {promotion.to_version} is the champion now, {before} was before; the catalog "
            f"that endpoints follow has {name_version(served.version)}: {served.problem}"
        )
    if promotion.waits:
        sys.exit(EXIT_WAITING)


def find_served(
    output: Output, infos: "Sequence[TaskInfo]"
) -> "tuple[dict[str, int | None], dict[str, str]]":
    """Version of each task that the catalog says is served, and what is broken of tasks."""
    from orchestrator.errors import StoreError

    problems = {info.task: [info.problem] for info in infos if info.problem is not None}
    found = Catalogued()
    try:
        found = read_catalogued(_read_catalog(output) if infos else None, infos)
    except StoreError as error:
        output.err.print(f"what is served is not known: {error}", markup=False, soft_wrap=True)
    for task, problem in found.problems.items():
        problems.setdefault(task, []).append(problem)
    champions = {info.task: info.champion.version if info.champion else None for info in infos}
    served, behind = dict(found.versions), [info.task for info in infos if found.is_behind(info)]
    # Rollouts take longer to load than the whole list: they are read where something is amiss.
    for task in list(dict.fromkeys([*problems, *behind]))[:_MAX_LOOKED_AT]:
        if (told := rollout_problem(output, task)) is not None:
            problems.setdefault(task, []).append(told)
    if behind:
        first = behind[0]
        has, wants = name_version(served[first]), name_version(champions[first])
        output.err.print(
            f"The catalog that endpoints follow has another version than the champion of {len(behind)} tasks,"
            f" such as {first}: {has}, not {wants}. A running endpoint "
            "brings it in line within seconds; `ship sync` says what holds it up.",
            markup=False,
            soft_wrap=True,
        )
    return served, {task: "; ".join(found) for task, found in problems.items()}


def rollout_problem(output: Output, task: str) -> str | None:
    """What is wrong with a task's rollout; read past the store of prompts, which takes long to import."""
    from orchestrator.errors import ObjectMissing, StoreError
    from orchestrator.store.documents.rollout import MAX_ROLLOUT_BYTES, Rollout, rollout_key

    objects, key = output.objects(), rollout_key(task)
    try:
        stored = objects.get(key, max_bytes=MAX_ROLLOUT_BYTES)
        found = Rollout.from_json(stored.data, f"{objects.url}/{key}").task
    except ObjectMissing:
        return None
    except StoreError as error:
        return str(error)
    return None if found == task else f"{objects.url}/{key}: it is the rollout of task {found!r}"


def _read_catalog(output: Output) -> "Catalog | None":
    from orchestrator.errors import ObjectMissing
    from orchestrator.store.documents.catalog import CATALOG_KEY, MAX_CATALOG_BYTES, Catalog

    try:
        return Catalog.from_bytes(output.objects().get(CATALOG_KEY, max_bytes=MAX_CATALOG_BYTES).data)
    except ObjectMissing:
        return None
