"""A backbone of which planning knows the shapes alone, and plans on it."""

from dataclasses import dataclass, replace

from orchestrator.manifest.model import Manifest, Terms
from orchestrator.planning.plan import Plan, make_plan

__all__ = ["FakeBackbone", "plan", "with_terms"]


@dataclass(frozen=True)
class FakeBackbone:
    name: str = "fake"
    fingerprint: str = "f" * 64
    depth: int = 12
    width: int = 16
    image_size: tuple[int, int] = (4, 4)


def plan(manifest: Manifest, **options: object) -> Plan:
    return make_plan(manifest, **{"backbone": FakeBackbone(), "published": frozenset(), **options})


def with_terms(manifest: Manifest, **terms: Terms) -> Manifest:
    """The manifest with terms by task name."""
    tasks = tuple(replace(task, terms=terms.get(task.name, task.terms)) for task in manifest.tasks)
    return replace(manifest, tasks=tasks)
