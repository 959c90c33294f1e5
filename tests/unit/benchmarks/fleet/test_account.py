"""Accounts of a run's time and of its memory's growth."""

from orchestrator.events import Event
from tests.benchmarks.fleet.account import growth_kb, make_account
from tests.benchmarks.fleet.watch import Sample


def test_an_account_tells_where_the_time_of_workers_went() -> None:
    def event(kind: str, task: str, time_s: float, **data: object) -> Event:
        return Event(kind=kind, task=task, key="k", attempt=1, time_s=time_s, data=data)

    events = [
        event("leased", "a", 110.0),
        event("leased", "b", 111.0),
        event("published", "a", 114.0, metrics={"tuning_s": 3.0}),
        event("published", "b", 118.0, metrics={"tuning_s": 5.0}),
    ]
    account = make_account(events, began_s=100.0, ended_s=120.0, num_workers=2)
    assert (account.start_up_s, account.work_s, account.tail_s) == (10.0, 8.0, 2.0)
    assert account.breakdown() == {
        "start-up": 10.0,
        "tuning": 4.0,
        "beside tuning": 4.0,
        "after the last publication": 2.0,
    }
    assert sum(account.breakdown().values()) == account.run_s * 2 / 2


def test_growth_is_told_from_a_tenth_of_the_tasks_on() -> None:
    samples = [Sample(time_s=float(second), kb={"driver": 1000.0 + 10 * second}) for second in range(101)]
    published_s = [float(second) for second in range(1, 101)]
    assert growth_kb(samples, published_s, "driver") == (1110.0, 2000.0)
    assert growth_kb(samples, published_s, "ledger") == (0.0, 0.0)
