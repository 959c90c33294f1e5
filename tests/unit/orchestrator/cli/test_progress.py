from io import StringIO

import pytest
from rich.console import Console

from orchestrator.cli.progress import ProgressView, eta_s
from orchestrator.train.ledger.failures import failure_of
from orchestrator.train.ledger.grants import LedgerPolicy
from orchestrator.train.ledger.ledger import Ledger
from orchestrator.train.ledger.status import TaskStatus
from ship.errors import DataError
from tests.unit.orchestrator.train.fakes import Clock, Spec, epoch


@pytest.fixture
def clock() -> Clock:
    return Clock()


def console(*, terminal: bool, height: int = 40) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=120, height=height, color_system=None)


def said(view_console: Console) -> str:
    return view_console.file.getvalue()


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
    ledger.complete("worker-0@host:1", "bricks", 1, {})
    ledger.lease("worker-0@host:1")
    ledger.fail("worker-0@host:1", "odd-or-even", 1, failure_of(DataError("a.png: broken")))
    view.update(ledger.status())
    view.close()
    lines = said(out).splitlines()
    assert lines[0] == "bricks: tunes on worker-0, epoch 1/100, accuracy 0.500"
    assert lines[1] == "bricks: tunes on worker-0, epoch 10/100, accuracy 0.500, ETA 1:30"
    assert lines[-2:] == ["bricks: done, epoch 100/100, accuracy 0.500", "odd-or-even: failed, a.png: broken"]
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
