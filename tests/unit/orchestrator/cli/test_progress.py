import re
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from orchestrator.cli.progress import ProgressView
from orchestrator.train.ledger.failures import failure_of
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.ledger.status import TaskStatus
from orchestrator.train.run.text import eta_s
from ship.errors import DataError
from tests.unit.orchestrator.train.fakes import Clock, Spec, epoch, make_ledger, status

MEASURED = {"accuracy": 0.658, "accuracy_low": 0.6012, "accuracy_high": 0.712, "probe_accuracy": 0.64}


@pytest.fixture
def clock() -> Clock:
    return Clock()


def console(*, terminal: bool, height: int = 40, width: int = 120) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=width, height=height, color_system=None)


def said(view_console: Console) -> str:
    return view_console.file.getvalue()


def frame(view: ProgressView, view_console: Console) -> str:
    """The table that is left standing on the terminal, without control codes."""
    view.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said(view_console)).replace("\r", "")
    return plain[plain.rindex("task ") :]


def test_eta_is_the_rate_since_the_first_epoch_times_what_is_left() -> None:
    status = TaskStatus(
        task="a", key="k", state="leased", epoch=21, num_epochs=100, first_epoch=11, first_epoch_s=50.0
    )
    assert eta_s(status, now_s=70.0) == pytest.approx(158.0)


@pytest.mark.parametrize(
    "values",
    [
        {"state": "pending", "epoch": 5, "num_epochs": 10, "first_epoch": 1, "first_epoch_s": 1.0},
        {"state": "leased"},
        {"state": "leased", "epoch": 1, "num_epochs": 10, "first_epoch": 1, "first_epoch_s": 1.0},
    ],
)
def test_no_eta_while_it_cannot_be_told(values: dict) -> None:
    assert eta_s(TaskStatus(task="a", key="k", **values), now_s=10.0) is None


def test_off_a_terminal_each_change_and_each_tenth_is_one_line(clock: Clock) -> None:
    out = console(terminal=False)
    view = ProgressView(out, clock)
    ledger = Ledger([Spec("bricks"), Spec("odd-or-even", num_images=50)], LedgerPolicy(), clock, wall=clock)
    ledger.join("worker-0@host:1", 0, 1)
    view.update(ledger.status())
    assert said(out) == ""
    ledger.lease("worker-0@host:1")
    for number in range(1, 101):
        clock.advance(1)
        ledger.heartbeat("worker-0@host:1", "bricks", 1, epoch(number))
        view.update(ledger.status())
        view.update(ledger.status())
    ledger.complete("worker-0@host:1", "bricks", 1, {"metrics": MEASURED})
    ledger.lease("worker-0@host:1")
    ledger.fail("worker-0@host:1", "odd-or-even", 1, failure_of(DataError("a.png: broken")))
    view.update(ledger.status())
    view.close()
    lines = said(out).splitlines()
    assert lines[0] == "bricks: tunes on worker-0, epoch 1/100, training accuracy 0.500"
    assert lines[1] == "bricks: tunes on worker-0, epoch 10/100, training accuracy 0.500, ETA 1:30"
    assert lines[-2:] == [
        "bricks: done, held out 0.658 (0.601-0.712), probe 0.640",
        "odd-or-even: failed, a.png: broken",
    ]
    assert len(lines) == 13


def test_a_retry_says_why(clock: Clock) -> None:
    out = console(terminal=False)
    view = ProgressView(out, clock)
    ledger = Ledger([Spec("a")], LedgerPolicy(), clock, wall=clock)
    ledger.join("w", 0, 1)
    ledger.lease("w")
    view.update(ledger.status())
    ledger.crashed(0, "SIGKILL")
    view.update(ledger.status())
    assert said(out).splitlines()[-1] == "a: waits, attempt 2: its worker died: SIGKILL"


def test_on_a_terminal_there_is_one_table(clock: Clock) -> None:
    out = console(terminal=True)
    view = ProgressView(out, clock)
    ledger = Ledger([Spec("bricks"), Spec("faces", num_images=9)], LedgerPolicy(), clock, wall=clock)
    view.update(ledger.status())
    assert "2 waiting; the workers are being started" in said(out)
    ledger.join("worker-0@host:1", 0, 1)
    ledger.lease("worker-0@host:1")
    ledger.heartbeat("worker-0@host:1", "bricks", 1, epoch(40))
    view.update(ledger.status())
    view.close()
    view.close()
    last = said(out)[said(out).rindex("task") :]
    assert "bricks" in last
    assert "40/100" in last
    assert "worker-0" in last
    assert "1 at work, 1 waiting" in last


def test_a_table_longer_than_the_terminal_shows_those_at_work(clock: Clock) -> None:
    out = console(terminal=True, height=12)
    view = ProgressView(out, clock)
    ledger = Ledger(
        [Spec(f"t{number:02}", num_images=number) for number in range(30)], LedgerPolicy(), clock, wall=clock
    )
    ledger.join("w", 0, 1)
    ledger.lease("w")
    view.update(ledger.status())
    view.close()
    assert "t29" in said(out)
    assert "... 25 more" in said(out)


def test_markup_in_a_cause_is_not_obeyed(clock: Clock) -> None:
    for terminal in (True, False):
        out = console(terminal=terminal)
        view = ProgressView(out, clock)
        ledger = Ledger([Spec("a")], LedgerPolicy(), clock, wall=clock)
        ledger.lease("w")
        ledger.fail("w", "a", 1, failure_of(DataError("[red]x[/nope].png")))
        view.update(ledger.status())
        view.close()
        assert "[red]x[/nope].png" in said(out)


@pytest.mark.parametrize("width", [62, 80, 100, 200])
@pytest.mark.parametrize("note", ["out of memory: " + "x" * 2000, "壊れた画像 " * 300, "a\n" * 500])
def test_a_long_note_blanks_nothing_at_any_width(clock: Clock, width: int, note: str) -> None:
    names = ["line-3.weld-seam-front", "caps"]
    view = ProgressView(out := console(terminal=True, width=width), clock)
    ledger = make_ledger(clock, *names)
    for seat in range(2):
        ledger.join(f"worker-{seat}@host:1", seat, 2)
        ledger.lease(f"worker-{seat}@host:1")
        ledger.crashed(seat, note)
    clock.advance(1000)
    ledger.join("worker-2@host:1", 0, 1)
    ledger.lease("worker-2@host:1")
    ledger.heartbeat("worker-2@host:1", names[0], 2, epoch(3))
    view.update(ledger.status())
    shown = frame(view, out)
    lines = shown.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert sum(len(line) > 0 for line in lines) < 20, "a note takes few lines"
    assert set(names) <= set(shown.split())
    assert shown.count("attempt") == 2
    for word in ("3/100,", "0.500,", "worker-2,", "waits", "tunes"):
        assert word in shown.split()


@pytest.mark.parametrize("width", [62, 80, 100, 200])
def test_figures_are_shown_whole_at_any_width(clock: Clock, width: int) -> None:
    view = ProgressView(out := console(terminal=True, width=width), clock)
    ledger = make_ledger(clock, "bricks", "a-name-of-many-letters-" + "x" * 40)
    ledger.join("worker-0@host:1", 0, 1)
    ledger.lease("worker-0@host:1")
    ledger.complete("worker-0@host:1", "bricks", 1, {"metrics": MEASURED})
    ledger.lease("worker-0@host:1")
    view.update(ledger.status())
    shown = frame(view, out)
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert shown.count("x") == 40, "a long name is folded, not cut"
    for word in ("held", "out", "0.658", "(0.601-0.712),", "probe", "0.640"):
        assert word in shown.split()


def test_training_accuracy_is_shown_only_while_a_task_tunes(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    ledger.lease("w")
    ledger.heartbeat("w", "a", 1, epoch(10, train_accuracy=1.0))
    assert (status(ledger, "a").train_accuracy, status(ledger, "a").accuracy) == (1.0, None)
    ledger.complete("w", "a", 1, {"metrics": MEASURED})
    ended = status(ledger, "a")
    assert (ended.train_accuracy, ended.accuracy, ended.probe_accuracy) == (None, 0.658, 0.64)
    view = ProgressView(out := console(terminal=True), clock)
    view.update(ledger.status())
    assert "1.000" not in said(out)
    assert "held out 0.658 (0.601-0.712), probe 0.640" in said(out)


def test_a_search_shows_its_round_what_is_left_and_its_eta(clock: Clock) -> None:
    ledger = make_ledger(clock, "a")
    ledger.join("worker-0@host:1", 0, 1)
    ledger.lease("worker-0@host:1")
    step = {"round": 1, "num_rounds": 3, "num_candidates": 8, "num_epochs": 100, "is_new_round": False}
    view = ProgressView(out := console(terminal=False), clock)
    for number in (10, 30):
        ledger.heartbeat("worker-0@host:1", "a", 1, {**step, "epoch": number})
        clock.advance(10)
    view.update(ledger.status())
    [line] = said(out).splitlines()
    assert line == "a: searches on worker-0, round 1/3, 8 candidates left, ETA 1:10"
    assert status(ledger, "a").best_epoch == 0, "a search is no progress of the tuning"
    ledger.heartbeat("worker-0@host:1", "a", 1, epoch(1))
    tuning = status(ledger, "a")
    assert (tuning.search, tuning.first_epoch, tuning.first_epoch_s) == (None, 1, clock.now_s)


def test_a_run_that_is_over_tunes_nothing(clock: Clock) -> None:
    for terminal in (True, False):
        ledger = make_ledger(clock, "a", "b")
        ledger.lease("w")
        for number in (1, 2):
            ledger.heartbeat("w", "a", 1, epoch(number))
            clock.advance(10)
        view = ProgressView(out := console(terminal=terminal), clock, lists_all=True)
        view.update(ledger.status(), is_over=True)
        shown = frame(view, out) if terminal else said(out)
        assert shown.count("unfinished") == (3 if terminal else 2)
        assert "ETA" not in shown
        assert "tunes" not in shown
