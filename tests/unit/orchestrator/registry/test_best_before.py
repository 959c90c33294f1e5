"""The earlier champion that a version is compared with: the best by the share that the gate tests."""

from dataclasses import replace

import pytest

from orchestrator.registry.best_before import find_best_before
from orchestrator.registry.gate import decide
from orchestrator.registry.measurement import Measurement
from orchestrator.registry.versions import DATA_TAG, GATE_TAG, VersionInfo
from tests.unit.orchestrator.registry.factory import World

DATA = "d" * 64


def measured(good: int, defects: int) -> Measurement:
    """Of 400 good images and 20 defects that many right; the linear probe answers the same."""
    right = "1" * good + "0" * (400 - good) + "1" * defects + "0" * (20 - defects)
    return Measurement(
        accuracy=(good + defects) / 420,
        probe_accuracy=(good + defects) / 420,
        num_images=420,
        recalls=((good, 400), (defects, 20)),
        classes=("good", "defect"),
        data=DATA,
        labels=(0,) * 400 + (1,) * 20,
        right=right,
        probe_right=right,
    )


@pytest.fixture
def info() -> VersionInfo:
    """A version that the gate promoted."""
    world = World()
    world.add()
    found = world.registry.version("bolts", 1)
    return replace(found, tags={GATE_TAG: "champion", DATA_TAG: DATA})


def test_balanced_accuracy_does_not_slide_down_while_accuracy_rises(info: VersionInfo) -> None:
    steps = [(360, 19), (372, 17), (381, 15), (388, 13), (393, 11), (396, 10)]
    versions: list[tuple[VersionInfo, Measurement]] = []
    withheld = []
    for number, step in enumerate(steps):
        new = measured(*step)
        assert new.accuracy is not None
        assert new.balanced_accuracy is not None
        metrics = {"accuracy": new.accuracy, "balanced_accuracy": new.balanced_accuracy}
        champion, best = None, None
        if versions:
            champion = versions[-1]
            best = find_best_before([one for one, _ in versions], champion[0], DATA)
        by_info = {one.version: measurement for one, measurement in versions}
        decision = decide(
            new, None if champion is None else champion[1], None if best is None else by_info[best.version]
        )
        if decision.promote:
            versions.append((replace(info, version=number + 1, metrics=metrics), new))
        else:
            withheld.append(decision.gate)
    served = [measurement.balanced_accuracy for _, measurement in versions]
    assert withheld == ["best", "best", "champion"]
    assert served == pytest.approx([0.925, 0.890, 0.851], abs=0.001), "by accuracy it goes on to 0.745"


def test_a_version_without_a_balanced_accuracy_is_ranked_by_its_accuracy(info: VersionInfo) -> None:
    champion = replace(info, version=3, metrics={"accuracy": 0.80})
    old, older = (replace(info, version=n, metrics={"accuracy": n / 10 + 0.7}) for n in (2, 1))
    assert find_best_before([champion, old, older], champion, DATA) == old
    assert find_best_before([champion, old], champion, "e" * 64) is None
    challenger = replace(old, tags={GATE_TAG: "challenger", DATA_TAG: DATA})
    assert find_best_before([champion, challenger], champion, DATA) is None
