"""Versions that were measured on the same held-out images are paired, whatever each was tuned with."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.registry.best_before import find_best_before
from orchestrator.registry.gate import GateDecision, decide
from orchestrator.registry.measurement import Measurement
from orchestrator.registry.record_writer import RecordWriter
from orchestrator.registry.runs import RunLog
from orchestrator.registry.versions import DATA_TAG, GATE_TAG, HELD_OUT_TAG, VersionInfo
from orchestrator.store.prompt_store import PromptStore
from tests.unit.orchestrator.registry.factory import World
from tests.unit.orchestrator.store.factory import make_key, tune

NUM = 200
IMAGES, OTHERS = "1" * 64, "2" * 64
TRUTH = (0, 1) * (NUM // 2)


def answered(num_right: int, data: str, held_out: str | None = IMAGES, **changes: Any) -> Measurement:
    """Two classes in turn, of which the first images are right; the linear probe does as well."""
    right = "1" * num_right + "0" * (NUM - num_right)
    counts = tuple((right[label::2].count("1"), NUM // 2) for label in (0, 1))
    found = Measurement(
        accuracy=num_right / NUM,
        probe_accuracy=num_right / NUM,
        num_images=NUM,
        recalls=counts,
        classes=("good", "scratch"),
        data=make_key(data),
        held_out=held_out,
        labels=TRUTH,
        right=right,
        probe_right=right,
    )
    return replace(found, **changes)


def test_a_version_of_a_retune_that_breaks_eight_and_fixes_none_is_withheld() -> None:
    decision = decide(answered(182, "retuned"), answered(190, "first"))
    assert (decision.promote, decision.gate) == (False, "champion")
    assert "worse than today's champion (0.9500; right on 0 where it errs, wrong on 8, " in decision.reason
    assert "data" not in decision.reason, "the images are the same"


def test_what_was_fixed_and_broken_is_counted_where_a_class_came_in_between() -> None:
    """A class whose name comes first, so that all numbers are others; it has no held-out image yet."""
    moved = answered(182, "retuned", labels=tuple(label + 1 for label in TRUTH), unmeasured=("dent",))
    decision = decide(moved, answered(190, "first"))
    assert "right on 0 where it errs, wrong on 8, " in decision.reason


def test_other_held_out_images_are_not_paired_and_that_is_said() -> None:
    decision = decide(answered(182, "retuned", OTHERS), answered(190, "first"))
    assert decision.promote
    assert decision.reason.endswith(" The champion was measured on other data.")


def numbered(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{number:016x}" for number in numbers)


def test_where_a_cut_moved_the_images_of_both_are_paired_by_what_they_are() -> None:
    """The candidate has them in another order, four fewer, and six others, which it gets wrong."""
    champion = answered(190, "first", images=numbered(*range(NUM)))
    order = [*range(NUM - 1, 3, -1), *range(500, 506)]
    right = "".join("1" if place < 182 else "0" for place in order)
    labels = tuple(place % 2 for place in order)
    told = {"labels": labels, "right": right, "probe_right": right}
    candidate = answered(182, "more", OTHERS, images=numbered(*order), **told)
    decision = decide(candidate, champion)
    assert (decision.promote, decision.gate) == (False, "champion")
    assert (
        "worse than today's champion (balanced accuracy of the 196 images that both answered 0.9490 beside "
        "0.9082; right on 0 where it errs, wrong on 8, "
    ) in decision.reason
    assert "data" not in decision.reason


@pytest.mark.parametrize(
    "images",
    [numbered(*range(41, NUM + 41)), numbered(*range(0, 2 * NUM, 2)) + numbered(*range(500, 600)), ()],
    ids=["too few", "of one class", "of before"],
)
def test_too_few_images_in_common_are_not_paired(images: tuple[str, ...]) -> None:
    candidate = answered(182, "more", OTHERS, images=images)
    beside = candidate.beside(answered(190, "first", images=numbered(*range(NUM))))
    assert beside is not None
    assert not beside.is_paired
    assert beside.share == "balanced accuracy"


def test_images_of_a_new_class_do_not_keep_the_others_from_being_paired() -> None:
    champion = answered(190, "first", images=numbered(*range(NUM)))
    candidate = answered(
        182,
        "more",
        OTHERS,
        images=numbered(*range(NUM + 100)),
        labels=TRUTH + (2,) * 100,
        right=answered(182, "more").right + "1" * 100,
        recalls=((91, 100), (91, 100), (100, 100)),
        classes=("good", "scratch", "tear"),
        probe_right="",
    )
    decision = decide(candidate, champion)
    assert "of the 200 images that both answered 0.9500 beside 0.9100; right on 0 where" in decision.reason


@pytest.mark.parametrize(("own", "other"), [(None, None), (IMAGES, None), (None, IMAGES)])
def test_a_record_of_before_falls_back_to_the_whole_data(own: str | None, other: str | None) -> None:
    decision = decide(answered(182, "retuned", own), answered(190, "first", other))
    assert decision.promote
    assert decision.reason.endswith(
        " The champion is of other data; whether its held-out images are the same is not on record."
    )
    decision = decide(answered(182, "first", own), answered(190, "first", other))
    assert "right on 0 where it errs, wrong on 8, " in decision.reason
    assert "data" not in decision.reason


def test_labels_that_differ_are_not_paired_by_the_data_alone() -> None:
    swapped = answered(182, "first", None, labels=TRUTH[::-1])
    beside = swapped.beside(answered(190, "first", None))
    assert beside is not None
    assert beside.difference.gained is None


@pytest.mark.parametrize("odd", [None, {}, {"fingerprint": None, "images": None}, {"fingerprint": ""}])
def test_a_record_without_a_fingerprint_has_none(odd: object) -> None:
    assert Measurement.read({}, {"held_out": odd}).held_out is None
    told = {"fingerprint": IMAGES, "images": ["a", "b"], "labels": [0, 1], "right": "10"}
    found = Measurement.read({}, {"held_out": told})
    assert (found.held_out, found.images) == (IMAGES, ("a", "b"))
    assert Measurement.read({}, {"held_out": {**told, "images": ["a"]}}).images == ()


@pytest.fixture
def info() -> VersionInfo:
    """A version that the gate promoted."""
    world = World()
    world.add()
    found = world.registry.version("bolts", 1)
    return replace(found, tags={GATE_TAG: "champion", DATA_TAG: make_key("0"), HELD_OUT_TAG: IMAGES})


def slide(info: VersionInfo, steps: list[int], held_out: str | None) -> list[GateDecision]:
    """Decisions on versions that get this many right, each of a data set of its own."""
    decisions: list[GateDecision] = []
    served: list[tuple[VersionInfo, Measurement]] = []
    for number, num_right in enumerate(steps):
        new = answered(num_right, str(number), held_out)
        best, champion = None, served[-1] if served else None
        if champion is not None:
            found = find_best_before([one for one, _ in served], champion[0], new.data, new.held_out)
            best = next((measured for one, measured in served if one is found), None)
        decisions.append(decide(new, None if champion is None else champion[1], best))
        if decisions[-1].promote:
            tags = {**info.tags, DATA_TAG: make_key(str(number))} | ({} if held_out else {HELD_OUT_TAG: ""})
            metrics = {"balanced_accuracy": num_right / NUM}
            served.append((replace(info, version=number + 1, metrics=metrics, tags=tags), new))
    return decisions


def test_accuracy_does_not_slide_down_from_retune_to_retune(info: VersionInfo) -> None:
    decisions = slide(info, [190, 181, 170, 157, 146], IMAGES)
    assert [decision.gate for decision in decisions] == [None, *["champion"] * 4]
    blind = slide(info, [190, 181, 170, 157, 146], None)
    assert all(decision.promote for decision in blind), "records of before: step by step"


def test_steps_too_small_to_see_end_at_the_best_version_on_the_images(info: VersionInfo) -> None:
    decisions = slide(info, [190, 187, 184], IMAGES)
    assert [decision.gate for decision in decisions] == [None, None, "best"]
    assert "worse than an earlier champion on the same images (0.9500; right on 0" in decisions[2].reason


def test_versions_of_before_are_found_by_their_data(info: VersionInfo) -> None:
    champion = replace(info, version=3, metrics={"accuracy": 0.80})
    old = replace(info, version=1, metrics={"accuracy": 0.9}, tags={GATE_TAG: "champion", DATA_TAG: "d"})
    assert find_best_before([champion, old], champion, "d", IMAGES) == old
    assert find_best_before([champion, old], champion, "e", IMAGES) is None
    assert find_best_before([champion, old], champion, "e", None) is None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose runs have neither curves nor files, which are another matter."""
    for name in ("log", "log_files", "log_data", "set_status"):
        monkeypatch.setattr(RunLog, name, lambda self, *args: None)
    return World()


def record(world: World, number: int, num_right: int) -> VersionInfo:
    """Publish, register and judge a version of data of its own, on the same held-out images."""
    found = answered(num_right, f"data {number}")
    confusion = [[right, all_ - right] for right, all_ in found.recalls]
    answers = {"fingerprint": IMAGES, "labels": TRUTH, "right": found.right, "probe_right": found.right}
    key = make_key(f"k{number}")
    events = tune(
        world.store,
        key=key,
        accuracy=num_right / NUM,
        probe_accuracy=num_right / NUM,
        data=f"data {number}",
        record={"held_out": answers, "confusion": [confusion[0], confusion[1][::-1]]},
    )
    RecordWriter(world.fresh_registry(), PromptStore(world.objects.client())).write("bolts", key, events)
    return world.registry.version("bolts", number)


def test_a_version_is_registered_with_what_tells_its_images(world: World) -> None:
    first, second = record(world, 1, 190), record(world, 2, 182)
    assert first.held_out_fingerprint == second.held_out_fingerprint == IMAGES
    assert first.data_fingerprint != second.data_fingerprint
    assert "wrong on 8" in (second.gate_reason or "")
    record(world, 3, 187)
    assert world.aliases() == {"champion": 3, "challenger": 2, "previous": 1}
    assert "worse than an earlier champion on the same images" in (record(world, 4, 184).gate_reason or "")
