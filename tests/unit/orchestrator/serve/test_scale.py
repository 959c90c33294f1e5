import pytest

from orchestrator.errors import ServeError
from orchestrator.serve.scale import Scale


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("1", 1, 1), ("12", 12, 12), ("auto:1-8", 1, 8), ("auto:3-3", 3, 3), ("auto", None, None)],
)
def test_a_number_auto_or_bounds_are_read(text: str, least: int | None, most: int | None) -> None:
    found = Scale.read(text)
    assert (found.least, found.most, found.is_open) == (least, most, least is None)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1.5", "auto:", "auto:1", "auto:0-2", "auto:3-2", "auto:1-", "1-8", "AUTO", "²"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ServeError, match="expected a number such as 2, or auto, or bounds"):
        Scale.read(text)


def test_only_open_bounds_are_filled() -> None:
    assert Scale.read("auto").within(2, 5) == Scale(least=2, most=5)
    assert Scale.read("auto").within(4, 1) == Scale(least=4, most=4)
    assert Scale.read("auto:1-8").within(2, 5) == Scale(least=1, most=8)
