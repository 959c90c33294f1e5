"""Plans of tasks whose pictures are looked at in parts: warnings, keys, estimates."""

from dataclasses import replace

import pytest

from orchestrator.manifest.model import Manifest, TaskEntry
from orchestrator.planning.estimates import Speed
from orchestrator.planning.plan import make_plan
from ship.settings.view import View
from tests.unit.orchestrator.planning.factory import FakeBackbone


def test_pictures_that_are_shrunk_too_far_are_told_once_for_all_tasks_alike(manifest: Manifest) -> None:
    def warnings(entries: tuple[TaskEntry, ...], size: int, published: set[tuple[str, str]]) -> list[str]:
        backbone = FakeBackbone(image_size=(size, size))
        changed = replace(manifest, tasks=entries)
        plan = make_plan(changed, backbone=backbone, published=published)
        return [text for text in plan.warnings if "small defects may vanish" in text]

    assert warnings(manifest.tasks, 4, set()) == []
    [told] = warnings(manifest.tasks, 1, set())
    assert told.startswith("task caps and 1 more: pictures of 4 x 4 are shrunk to 1 x 1 pixels")
    tiled = tuple(replace(entry, view=View(tiles="2x2")) for entry in manifest.tasks)
    assert warnings(tiled, 1, set()) == []
    keys = {
        (task.spec.name, task.spec.key)
        for task in make_plan(manifest, backbone=FakeBackbone(image_size=(1, 1)), published=set()).tasks
    }
    assert warnings(manifest.tasks, 1, keys) == [], "what is published is not tuned again"


def test_a_view_changes_the_key_and_reaches_the_worker(manifest: Manifest) -> None:
    view = View(crop=(0, 0, 2, 2))
    entry = manifest.tasks[0]
    backbone = FakeBackbone()
    plans = [
        make_plan(replace(manifest, tasks=(task,)), backbone=backbone, published=set())
        for task in (
            entry,
            replace(entry, view=view),
            replace(entry, view=View(tile_overlap=0.3)),
            replace(entry, view=View(bits=12)),
            replace(entry, view=View(decode="reduced")),
        )
    ]
    plain, seen, same, deep, reduced = (plan.tasks[0].spec for plan in plans)
    assert deep.key not in (plain.key, seen.key)
    assert deep.view.bits == 12
    assert reduced.key not in (plain.key, deep.key), "its pixels are others"
    assert seen.view == view
    assert seen.key != plain.key
    assert same.key == plain.key, "the overlap of a single tile is none"


def test_each_tile_takes_the_time_of_a_picture(manifest: Manifest) -> None:
    def seconds(view: View) -> float | None:
        entry = replace(manifest.tasks[0], view=view)
        return make_plan(
            replace(manifest, tasks=(entry,)),
            backbone=FakeBackbone(image_size=(2, 1)),
            published=set(),
            speed=Speed(images_per_s=10.0, num_runs=1),
        ).estimate_s

    plain = seconds(View())
    assert plain is not None
    assert seconds(View(tiles="3x2")) == pytest.approx(6 * plain)
    # Pictures of 4 x 4: two columns of 2 shrink to 1, and one row of 4 to 2.
    assert seconds(View(tiles="auto")) == pytest.approx(2 * plain)
