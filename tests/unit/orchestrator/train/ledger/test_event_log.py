from orchestrator.events import Event, EventKind
from orchestrator.train.ledger.event_log import EventLog


def event(task: str, kind: EventKind = "epoch") -> Event:
    return Event(kind=kind, task=task, key="k", attempt=1, time_s=0.0)


def tasks(events) -> list[str]:
    return [item.task for item in events]


def test_what_is_not_acknowledged_is_given_again() -> None:
    log = EventLog()
    for name in "abc":
        log.append(event(name))
    events, following = log.read(0)
    assert tasks(events) == ["a", "b", "c"]
    assert tasks(log.read(0)[0]) == ["a", "b", "c"]
    assert following == 3


def test_what_is_acknowledged_is_forgotten() -> None:
    log = EventLog()
    for name in "abc":
        log.append(event(name))
    log.read(2)
    assert len(log) == 1
    assert tasks(log.read(0)[0]) == ["c"]
    assert log.read(3) == ([], 3)
    log.append(event("d"))
    assert tasks(log.read(3)[0]) == ["d"]


def test_long_logs_are_read_in_pages() -> None:
    log = EventLog(max_read=2)
    for name in "abcde":
        log.append(event(name))
    pages, since = [], 0
    while page := (answer := log.read(since))[0]:
        pages.append(tasks(page))
        since = answer[1]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]


def test_without_a_reader_epochs_are_dropped_but_no_outcome_is() -> None:
    log = EventLog(max_events=10)
    for number in range(100):
        log.append(event(f"e{number}"))
        if number % 10 == 0:
            log.append(event(f"p{number}", "published"))
    assert len(log) < 30
    events, following = log.read(0)
    assert [name for name in tasks(events) if name[0] == "p"] == [
        f"p{number}" for number in range(0, 100, 10)
    ]
    assert tasks(events)[-1] == "e99"
    assert following == 110
