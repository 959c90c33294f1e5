import pytest

from orchestrator.durations import format_duration, parse_duration, parse_time

NOW_S = 1_800_000_000.0


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOW_S - 7 * 86_400),
        ("2026-11-01", 1_793_491_200.0),
        ("2026-11-01T06:00+01:00", 1_793_491_200.0 + 5 * 3600),
    ],
)
def test_a_time_is_a_duration_before_now_or_a_date(text: str, expected: float) -> None:
    assert parse_time(text, NOW_S) == expected


@pytest.mark.parametrize("text", ["", "x", "7", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 7d, or a date"):
        parse_time(text, NOW_S)
