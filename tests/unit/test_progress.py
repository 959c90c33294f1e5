"""Estimate of the time that is left, from what is done."""

from collections import Counter

import pytest

from tests.needs import Need
from tests.progress import Pace


def test_time_left_follows_from_expected_seconds_and_the_pace_so_far() -> None:
    pace = Pace(Counter({"fast.py": 10, "slow.py": 2}), {"fast.py": 10.0, "slow.py": 90.0})
    assert pace.left_s(elapsed_s=5.0) is None
    for _ in range(10):
        pace.finish("fast.py")
    # A tenth of the work took 20 s.
    assert pace.left_s(elapsed_s=20.0) == pytest.approx(180.0)
    pace.finish("slow.py")
    pace.finish("slow.py")
    assert pace.left_s(elapsed_s=200.0) == 0.0


def test_a_file_without_a_measurement_counts_a_second() -> None:
    pace = Pace(Counter({"new.py": 4, "old.py": 1}), {"old.py": 3.0})
    assert pace.total_s == pytest.approx(4.0)


def test_what_a_machine_lacks_is_named_with_what_installs_it() -> None:
    assert Need(tests="all", programs=("sh",)).problem() is None
    lacking = Need(tests="all", programs=("sh", "no-such-program")).problem()
    assert lacking == "no-such-program not found; `sudo deploy/local/install` installs them"
    absent = Need(tests="all", packages=("json", "no_such_package")).problem()
    assert absent == "no_such_package not installed; `pip install -e '.[industrial]'`"
    assert Need(tests="all", device="/dev/no-such-device").problem() == "no /dev/no-such-device"
