"""So many requests and bytes at a time; a flood of one task leaves room for the others."""

import pytest

from orchestrator.serve.admission import Admission
from orchestrator.serve.options import Limits


@pytest.fixture
def admission() -> Admission:
    return Admission(Limits(max_inside=10, max_inside_bytes=1000))


def enter(admission: Admission, task: str, times: int) -> int:
    """How many of so many requests get in."""
    return sum(admission.enter(task, 1) is None for _ in range(times))


def test_one_task_alone_may_have_half_of_the_places(admission: Admission):
    assert enter(admission, "bolts", 10) == 5
    assert "share" in admission.enter("bolts", 1)


def test_floods_leave_room_for_whoever_comes_next(admission: Admission):
    assert enter(admission, "bolts", 100) == 5
    assert enter(admission, "nuts", 100) == 3
    assert enter(admission, "gears", 100) == 1
    assert admission.enter("caps", 1) is None
    assert "room" in admission.enter("pins", 1)
    assert admission.num_inside == 10


def test_who_left_no_longer_counts(admission: Admission):
    enter(admission, "bolts", 5)
    admission.leave("bolts", 1)
    assert enter(admission, "bolts", 2) == 1
    for _ in range(5):
        admission.leave("bolts", 1)
    assert (admission.num_inside, admission.num_bytes) == (0, 0)
    assert enter(admission, "nuts", 10) == 5


def test_bytes_are_bounded_too_but_one_request_gets_through(admission: Admission):
    assert admission.enter("bolts", 5000) is None
    assert "room" in admission.enter("nuts", 1)
    admission.leave("bolts", 5000)
    assert admission.enter("nuts", 999) is None
    assert "room" in admission.enter("nuts", 2)
