"""So many requests and bytes at a time; a flood of one task leaves room for the others."""

import pytest

from orchestrator.serve.admission import Admission
from orchestrator.serve.options import Limits


@pytest.fixture
def admission() -> Admission:
    return Admission(Limits(max_inside=10, max_inside_bytes=1000))


def test_one_task_alone_may_have_all_places(admission: Admission):
    assert [admission.enter("bolts", 1) for _ in range(10)] == [None] * 10
    assert "room" in admission.enter("bolts", 1)


def test_a_flood_leaves_room_for_a_second_task(admission: Admission):
    for _ in range(6):
        admission.enter("bolts", 1)
    assert admission.enter("nuts", 1) is None
    assert "share" in admission.enter("bolts", 1)
    assert [admission.enter("nuts", 1) for _ in range(3)] == [None] * 3
    assert admission.num_inside == 10


def test_who_left_no_longer_counts(admission: Admission):
    for _ in range(10):
        admission.enter("bolts", 1)
    admission.leave("bolts", 1)
    assert admission.enter("nuts", 1) is None
    admission.leave("nuts", 1)
    assert admission.enter("bolts", 1) is None
    assert (admission.num_inside, admission.num_bytes) == (10, 10)


def test_refused_tasks_are_not_remembered(admission: Admission):
    for _ in range(6):
        admission.enter("bolts", 1)
    for number in range(100):
        if admission.enter(f"task-{number}", 1) is None:
            admission.leave(f"task-{number}", 1)
    # Had those stayed, its share of the places would be one of them.
    assert admission.enter("bolts", 1) is None


def test_bytes_are_bounded_too_but_one_request_gets_through(admission: Admission):
    assert admission.enter("bolts", 5000) is None
    assert "room" in admission.enter("nuts", 1)
    admission.leave("bolts", 5000)
    assert admission.enter("nuts", 999) is None
    assert admission.enter("nuts", 2) is not None
