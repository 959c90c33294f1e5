import pytest

from orchestrator.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("90m", 5400),
        ("12h", 43200),
        ("1d", 86400),
        (" 2w ", 1209600),
        ("1.5h", 5400),
        ("1d2h", 93600),
        ("5min", 300),
    ],
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "d", "1 d", "-1d", "1y", "0s", "2h1d", None, 7])
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="such as 30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (5400, "1h"), (2 * 86400, "2d"), (30 * 86400, "4w")]
)
def test_durations_are_written_in_the_largest_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
