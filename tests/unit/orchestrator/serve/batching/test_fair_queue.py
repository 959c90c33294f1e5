"""Tasks take turns; a full queue costs the task with most rows."""

import pytest

from orchestrator.serve.batching.fair_queue import FairQueue


def fill(queue: FairQueue[str], *items: str) -> list[str | None]:
    """Put items that are named after their task, as in ``a1``."""
    return [left[0] if (left := queue.put(item[0], item)) else None for item in items]


def drain(queue: FairQueue[str]) -> list[str]:
    return [queue.take() for _ in range(len(queue))]


def test_within_a_task_it_is_first_come_first_served():
    queue: FairQueue[str] = FairQueue(10)
    fill(queue, "a1", "a2", "a3")
    assert drain(queue) == ["a1", "a2", "a3"]


def test_a_flood_holds_up_no_other_task():
    queue: FairQueue[str] = FairQueue(10)
    fill(queue, "a1", "a2", "a3", "a4", "b1", "c1", "b2")
    assert drain(queue) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_whose_turn_it_is_outlasts_newcomers():
    queue: FairQueue[str] = FairQueue(10)
    fill(queue, "a1", "a2", "b1", "b2")
    assert queue.take() == "a1"
    fill(queue, "c1", "a3")
    assert drain(queue) == ["b1", "a2", "c1", "b2", "a3"]


def test_a_full_queue_refuses_the_task_that_has_most():
    queue: FairQueue[str] = FairQueue(3)
    assert fill(queue, "a1", "a2", "a3", "a4") == [None, None, None, "a4"]


def test_a_full_queue_takes_a_newcomer_in_place_of_the_newest_of_the_task_that_has_most():
    queue: FairQueue[str] = FairQueue(3)
    fill(queue, "a1", "a2", "a3")
    assert fill(queue, "b1") == ["a3"]
    # Now two and one: were b2 to push out a2, a4 would push out b2.
    assert fill(queue, "b2", "a4") == ["b2", "a4"]
    assert drain(queue) == ["a1", "b1", "a2"]


def test_as_many_tasks_as_places_keep_one_each():
    queue: FairQueue[str] = FairQueue(2)
    fill(queue, "a1", "b1")
    assert fill(queue, "c1") == ["c1"]


def test_what_is_removed_no_longer_counts():
    queue: FairQueue[str] = FairQueue(3)
    fill(queue, "a1", "b1")
    assert queue.remove("a", "a1")
    assert not queue.remove("a", "a1")
    assert not queue.remove("z", "z1")
    assert len(queue) == 1
    assert queue.take() == "b1"
    with pytest.raises(KeyError):
        drain(queue), queue.take()


class Picture:
    """Millions of numbers, in place of which this fails."""

    def __repr__(self) -> str:
        raise AssertionError("printed")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    __hash__ = object.__hash__


def test_nothing_is_printed_or_compared_to_find_that_it_has_left() -> None:
    queue: FairQueue[Picture] = FairQueue(3)
    first, second, third = Picture(), Picture(), Picture()
    for item in (first, second, third):
        queue.put("a", item)
    assert queue.take() is first
    assert not queue.remove("a", first)
    assert queue.remove("a", third)
    assert queue.take() is second


def test_a_queue_without_room_refuses_every_row():
    queue: FairQueue[str] = FairQueue(0)
    assert fill(queue, "a1") == ["a1"]


def make_sized(max_rows: int) -> FairQueue[str]:
    """A queue of items that say after their task how many rows they are, as in ``a3``."""
    return FairQueue(max_rows, lambda item: int(item[1]))


def test_an_item_of_several_rows_counts_each() -> None:
    queue = make_sized(6)
    assert fill(queue, "a3", "b2") == [None, None]
    assert len(queue) == 5
    assert queue.take() == "a3"
    assert len(queue) == 2
    assert queue.remove("b", "b2")
    assert len(queue) == 0


def test_room_for_a_large_item_is_made_by_several_of_the_task_with_most_rows() -> None:
    queue = make_sized(8)
    items = ["a1", "a1x", "a1y", "a1z", "a1w", "a1v", "a2"]
    fill(queue, *items)
    assert queue.put("b", "b3") == ["a2", "a1v"]
    assert len(queue) == 8


def test_nothing_leaves_for_an_item_that_has_no_right_to_the_room() -> None:
    queue = make_sized(4)
    fill(queue, "a1", "a1x", "c1", "c1x")
    assert fill(queue, "b3") == ["b3"]
    assert len(queue) == 4


def test_an_item_larger_than_the_queue_waits_alone() -> None:
    queue = make_sized(4)
    assert fill(queue, "a9") == [None]
    assert fill(queue, "b1") == ["a9"]
    assert drain(queue) == ["b1"]
