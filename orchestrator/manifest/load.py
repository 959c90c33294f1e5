"""The manifest's loader: reads it whole, and refuses it with the list of all problems.

It knows a manifest's syntax and not the data, which ``orchestrator.planning.plan`` reads.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ManifestError
from orchestrator.manifest.model import Manifest, PoolSettings
from orchestrator.manifest.paths import PathResolver
from orchestrator.manifest.problems import MANIFEST, Problems, describe_value
from orchestrator.manifest.schema import MANIFEST_KEYS, find_schema_problems, read_backbone
from orchestrator.manifest.settings import read_defaults, read_limits, without_none
from orchestrator.manifest.tasks import TaskReader
from orchestrator.manifest.yaml_document import YamlDocument, parse_yaml
from ship.data import read_small_file
from ship.errors import DataError

__all__ = ["load_manifest"]

MAX_MANIFEST_BYTES = 8 * 2**20


def load_manifest(path: str, *, keep_going: bool = False) -> Manifest:
    """Read and check a manifest.

    Args:
        path: Path of the YAML file, local or any fsspec URL; relative paths in it start from its folder.
        keep_going: Refuse single tasks for the problems of their entries. Problems of the manifest itself,
            and a manifest without a valid task, remain errors.

    Raises:
        ManifestError: Lists every problem with its place and line.
    """
    document, digest = _read_document(path)
    problems, resolver = Problems(document), PathResolver.of(path)
    value = _without_empty(document.value)
    for place, problem in find_schema_problems(value):
        problems.note(place, problem)
    tasks = TaskReader(problems, resolver, read_defaults(problems, value))
    tasks.read(value)
    _check_together(problems, value)
    store = value.get("store")
    backbone, image_size, wrong = read_backbone(value.get("backbone", "bundled"))
    for place, problem in wrong:
        problems.note(("backbone", *place), problem)
    manifest = Manifest(
        backbone=resolver.backbone(backbone),
        image_size=image_size,
        store=resolver.resolve(store) if isinstance(store, str) else None,
        tasks=tasks.sound(),
        limits=read_limits(problems, value.get("checks")),
        pool=_read_pool(value),
        max_tasks=value.get("max_tasks"),
        refused=tasks.refused(),
        digest=digest,
    )
    can_go_on = keep_going and manifest.tasks and MANIFEST not in problems.by_owner()
    if problems.all() and not can_go_on:
        raise ManifestError(problems.all())
    return manifest


def _read_pool(value: Mapping[str, Any]) -> PoolSettings:
    return PoolSettings(
        min_workers=value.get("min_workers"),
        max_workers=value.get("workers"),
        executor=value.get("executor"),
        max_fused=value.get("pack"),
    )


def _read_document(path: str) -> tuple[YamlDocument, str]:
    """The document, and the sha256 of its file."""
    try:
        content = read_small_file(path, max_bytes=MAX_MANIFEST_BYTES)
        document = parse_yaml(content)
    except DataError as error:
        raise ManifestError(error.problems) from error
    except ManifestError as error:
        raise ManifestError([f"{path}: {problem}" for problem in error.problems]) from error
    if not isinstance(document.value, dict):
        raise ManifestError(
            f"{path}: expected a mapping with {', '.join(MANIFEST_KEYS)}, "
            f"found {describe_value(document.value)}"
        )
    return document, hashlib.sha256(content).hexdigest()


def _check_together(problems: Problems, value: Mapping[str, Any]) -> None:
    if not value.get("tasks") and not value.get("tasks_from"):
        problems.note(
            (),
            "no tasks; list at least one under tasks, or name folders of tasks under tasks_from",
        )
    fewest, most = value.get("min_workers"), value.get("workers")
    if isinstance(fewest, int) and isinstance(most, int) and fewest > most >= 1:
        problems.note(("min_workers",), f"expected at most {most}, the value of workers, got {fewest}")


def _without_empty(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest and each of its tasks without their empty keys."""
    value = without_none(manifest)
    if isinstance(value.get("tasks"), list):
        value["tasks"] = [without_none(task) if isinstance(task, dict) else task for task in value["tasks"]]
    return value
