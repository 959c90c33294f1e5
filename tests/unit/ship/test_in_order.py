import subprocess
import sys
import threading
from contextlib import closing

import pytest

from ship.in_order import map_in_order

PATIENCE_S = 60.0


def test_calls_run_side_by_side_and_answer_in_order() -> None:
    together = threading.Barrier(4)
    ends = [threading.Event() for _ in range(9)]
    ends[8].set()

    def call(number: int) -> int:
        if number < 4:
            together.wait(PATIENCE_S)
        if number % 4 < 3:
            # Of each four the last ends first.
            assert ends[number + 1].wait(PATIENCE_S)
        ends[number].set()
        return number * number

    assert list(map_in_order(call, range(8), 4)) == [number * number for number in range(8)]


def test_there_are_no_more_threads_than_calls_and_none_for_nothing() -> None:
    names = list(map_in_order(lambda _: threading.get_ident(), range(1), 100))
    assert len(names) == 1
    assert list(map_in_order(lambda item: item, [], 4)) == []


def test_an_error_is_raised_in_its_place_and_ends_the_calls() -> None:
    called = []

    def call(number: int) -> int:
        called.append(number)
        if number == 1:
            raise ValueError("one")
        if number == 2:
            hangs.wait()
        return number

    hangs = threading.Event()
    with closing(map_in_order(call, range(1000), 1)) as answers:
        assert next(answers) == 0
        with pytest.raises(ValueError, match="one"):
            next(answers)
    hangs.set()
    assert called in ([0, 1], [0, 1, 2]), "at most the call under way is run to its end"


def test_a_caller_that_stops_waits_for_no_call_that_hangs() -> None:
    begun, hangs = threading.Event(), threading.Event()
    called = []

    def call(number: int) -> None:
        called.append(number)
        if number == 1:
            begun.set()
            hangs.wait()

    with closing(map_in_order(call, range(1000), 1)) as answers:
        next(answers)
        assert begun.wait(PATIENCE_S)
    assert called == [0, 1]
    hangs.set()


def test_a_process_ends_while_a_call_hangs() -> None:
    code = (
        "import threading; from ship.in_order import map_in_order;"
        "begun = threading.Event();"
        "answers = map_in_order(lambda n: n and (begun.set(), threading.Event().wait()), range(9), 2);"
        "next(answers); begun.wait(); raise KeyboardInterrupt"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert "KeyboardInterrupt" in done.stderr
