"""Limits on requests and bytes inside; a flood of one task leaves room for the others."""

import pytest

from orchestrator.serve.ingress.middleware.admission import Admission, choose_account
from orchestrator.serve.ingress.middleware.auth import Principal
from orchestrator.serve.options import Limits
from orchestrator.store.tokens import Scope


@pytest.fixture
def admission() -> Admission:
    return Admission(Limits(max_inside=10, max_inside_bytes=1000))


def enter(admission: Admission, task: str, times: int) -> int:
    """Number of requests that get in."""
    return sum(admission.enter(task, 1) is None for _ in range(times))


def test_one_task_alone_may_have_half_of_the_places(admission: Admission):
    assert enter(admission, "bolts", 10) == 5
    assert "share" in admission.enter("bolts", 1).detail


def test_floods_leave_room_for_the_next_account(admission: Admission):
    assert enter(admission, "bolts", 100) == 5
    assert enter(admission, "nuts", 100) == 3
    assert enter(admission, "gears", 100) == 1
    assert admission.enter("caps", 1) is None
    assert "room" in admission.enter("pins", 1).detail
    assert admission.num_inside == 10


def test_a_request_that_is_done_no_longer_counts(admission: Admission):
    enter(admission, "bolts", 5)
    admission.leave("bolts", 1)
    assert enter(admission, "bolts", 2) == 1
    for _ in range(5):
        admission.leave("bolts", 1)
    assert (admission.num_inside, admission.num_bytes) == (0, 0)
    assert enter(admission, "nuts", 10) == 5


def test_one_account_alone_may_have_half_of_the_bytes(admission: Admission):
    assert [admission.enter("bolts", 100) is None for _ in range(10)] == [True] * 5 + [False] * 5
    assert "share" in admission.enter("bolts", 100).detail
    assert admission.enter("nuts", 100) is None
    for _ in range(5):
        admission.leave("bolts", 100)
    assert (admission.num_inside, admission.num_bytes) == (1, 100)


def tell(name: str, *predict: str) -> str:
    """Account of a token's request that names the task ``bolts``."""
    return choose_account(Principal(name=name, scope=Scope(predict=predict)), "bolts")


def test_a_token_takes_no_places_of_a_task_that_it_has_no_access_to():
    assert tell("line-1", "bolts") == tell("line-2", "*") == "Task 'bolts'"
    assert "bolts" not in tell("monitor")
    assert tell("monitor") != tell("other", "nuts")
    # A batch names its tasks in its body: one token's batches leave room for another's.
    assert choose_account(Principal(name="line-1", scope=Scope(predict=("*",))), None) == tell(
        "line-1", "nuts"
    )


def test_bytes_are_bounded_too_but_one_request_gets_through(admission: Admission):
    assert admission.enter("bolts", 5000) is None
    assert "room" in admission.enter("nuts", 1).detail
    admission.leave("bolts", 5000)
    assert admission.enter("nuts", 999) is None
    assert "room" in admission.enter("nuts", 2).detail


def test_a_task_that_there_is_no_room_for_is_kept_out_for_a_while_and_no_other():
    now_s = 100.0
    admission = Admission(Limits(), clock=lambda: now_s)
    admission.keep_out("bolts", 4.0)
    admission.keep_out("nuts", 1.0)
    now_s = 102.0
    busy = admission.enter("Task 'bolts'", 1)
    assert (busy.wait_s, "share" in busy.detail) == (2.0, True)
    assert admission.enter("Task 'nuts'", 1) is None
    assert admission.enter("Task 'gears'", 1) is None
    now_s = 104.0
    assert admission.enter("Task 'bolts'", 1) is None
    admission.keep_out("caps", 1.0)
    assert list(admission._kept_out) == ["Task 'caps'"], "of the others nothing is kept"
