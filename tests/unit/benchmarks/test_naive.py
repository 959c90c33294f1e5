"""The plain SHIP that speeds are measured against is the method."""

from pathlib import Path

import pytest

from tests.benchmarks.naive import naive_forward
from tests.unit.ship.method.golden import FORWARD, TOLERANCE, Case, relative_error


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_the_naive_forward_is_the_method(path: Path) -> None:
    case = Case(path)
    logits, matching = naive_forward(case.backbone, case.prompt, case.images)
    expect = case.named("expect.")
    assert relative_error(logits, expect["logits"]) < TOLERANCE
    assert relative_error(matching, expect["matching_loss"]) < TOLERANCE
