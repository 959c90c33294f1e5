"""A row is waited for while it is expected sooner than the pass of its own that it would cost."""

import pytest

from orchestrator.serve.batching.batch_wait import BatchWait


def seen(gap_s: float, fixed_s: float, per_row_s: float = 0.001, max_wait_s: float = 0.010) -> BatchWait:
    """A policy that has seen rows come at one pace and passes that cost so much; the last row came at 0."""
    wait = BatchWait(max_wait_s)
    for number in range(100, -1, -1):
        wait.note_arrival(-number * gap_s)
    for num_rows in (1, 2, 4, 8) * 10:
        wait.note_pass(num_rows, fixed_s + per_row_s * num_rows)
    return wait


def test_the_fixed_part_of_a_pass_is_found():
    assert seen(0.001, fixed_s=0.007).fixed_s == pytest.approx(0.007, rel=1e-3)
    assert seen(0.001, fixed_s=0.0).fixed_s == pytest.approx(0.0, abs=1e-6)


def test_how_long_a_pass_will_take_is_told_by_its_rows():
    assert seen(0.001, fixed_s=0.007, per_row_s=0.002).expected_s(16) == pytest.approx(0.039, rel=1e-3)
    wait = BatchWait(0.010)
    assert wait.expected_s(16) == 0.0
    wait.note_pass(4, 0.2)
    assert wait.expected_s(8) == pytest.approx(0.4)


def test_how_many_rows_a_pass_of_some_seconds_has():
    wait = seen(0.001, fixed_s=0.007, per_row_s=0.002)
    assert wait.rows_within(0.040) == 16
    assert wait.rows_within(0.001) == 1, "a row alone is never refused"
    assert BatchWait(0.010).rows_within(1.0) is None


def test_a_device_that_has_become_faster_is_believed_at_once_and_one_that_was_held_up_is_not():
    wait = BatchWait(0.010)
    for _ in range(60):
        wait.note_pass(1, 2.5)
    assert wait.rows_within(3.0) == 1
    wait.note_pass(1, 0.15)
    assert wait.rows_within(3.0) == 20
    for num_rows in (16, 8, 16, 4):
        wait.note_pass(num_rows, 0.03 + 0.12 * num_rows)
    assert wait.expected_s(16) == pytest.approx(1.95, rel=0.01)
    # It takes many such passes until that is believed.
    wait.note_pass(16, 8.0)
    assert wait.expected_s(16) < 5.0


def test_nothing_is_known_at_first_and_no_row_waits():
    wait = BatchWait(0.010)
    assert wait.pause_s(0.0, 0.0) == 0.0
    wait.note_arrival(0.0)
    assert wait.pause_s(0.0, 0.0) == 0.0


def test_passes_of_one_size_tell_nothing_and_no_row_waits():
    wait = BatchWait(0.010)
    for number in range(10):
        wait.note_arrival(number * 0.001)
        wait.note_pass(1, 0.008)
    assert wait.pause_s(0.009, 0.009) == 0.0


def test_rows_that_come_sooner_than_they_save_are_waited_for():
    assert seen(gap_s=0.001, fixed_s=0.007).pause_s(0.0, 0.0) == pytest.approx(0.002, rel=0.01)


def test_rows_that_save_less_than_they_cost_are_not():
    assert seen(gap_s=0.005, fixed_s=0.002).pause_s(0.0, 0.0) == 0.0


def test_rare_rows_are_not_waited_for_whatever_they_save():
    assert seen(gap_s=1.0, fixed_s=5.0).pause_s(0.0, 0.0) == 0.0


def test_a_row_that_is_overdue_is_given_up():
    wait = seen(gap_s=0.001, fixed_s=0.007)
    assert wait.pause_s(0.0015, 0.0) == pytest.approx(0.0005, rel=0.02)
    assert wait.pause_s(0.0025, 0.0) == 0.0


def test_no_batch_waits_longer_than_the_limit():
    wait = seen(gap_s=0.002, fixed_s=0.020)
    wait.note_arrival(0.0075)
    assert wait.pause_s(0.0075, 0.0) == pytest.approx(0.0025)
    wait.note_arrival(0.0095)
    assert wait.pause_s(0.0095, 0.0) == 0.0


def test_after_a_pause_the_pace_is_learnt_anew():
    wait = seen(gap_s=1.0, fixed_s=0.007)
    for number in range(200):
        wait.note_arrival(10.0 + number * 0.001)
    assert wait.pause_s(10.199, 10.199) > 0.0
