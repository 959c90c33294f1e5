"""Installations to examine, in memory."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.doctor.row import Place, Row
from orchestrator.settings import Settings
from tests.unit.orchestrator.registry.factory import World, make_catalog_writer

__all__ = ["make_place", "make_served", "told"]


def make_place(folder: Path, world: World | None = None, **changes: Any) -> Place:
    """A home in a folder, with the store and the registry of a world."""
    world = world or World()
    settings = Settings(
        home=folder / "home",
        store="memory://store",
        tracking_uri="memory:",
        ray_address=None,
        cache=str(folder / "cache"),
    )
    place = Place(
        settings=settings,
        objects=world.objects.client,
        registry=world.fresh_registry,
        environ={},
        clock=lambda: world.now_s,
        monotonic=lambda: 0.0,
    )
    known = {name: value for name, value in changes.items() if name in vars(place)}
    others = {name: value for name, value in changes.items() if name not in known}
    return replace(place, **{"settings": replace(settings, **others), **known})


def make_served() -> World:
    """A task whose artifact is in the store, and that serves."""
    world = World()
    world.add_tuned()
    world.rollouts().promote("bolts", 1)
    assert make_catalog_writer(world).update(looks_at_rollouts=True).is_written
    return world


def told(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """State and subject of rows that are not ``ok``."""
    return [(row.state, row.what) for row in rows if row.state != "ok"]
