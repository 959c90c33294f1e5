import random

from orchestrator.train.ledger.waiting import WaitingTasks


def take(waiting: WaitingTasks, now_s: float) -> str | None:
    name = waiting.first(now_s)
    assert waiting.first(now_s) == name, "to look changes nothing"
    if name is not None:
        waiting.remove(name)
    return name


def test_tasks_come_in_their_order_whenever_they_were_put() -> None:
    waiting = WaitingTasks(["a", "b", "c", "d"])
    for name in "dbca":
        waiting.put(name, 0.0)
    assert [take(waiting, 0.0) for _ in range(5)] == ["a", "b", "c", "d", None]


def test_a_pause_lets_others_go_first() -> None:
    waiting = WaitingTasks(["a", "b"])
    waiting.put("a", 10.0)
    waiting.put("b", 0.0)
    assert take(waiting, 9.0) == "b"
    assert take(waiting, 9.0) is None
    assert take(waiting, 10.0) == "a"


def test_what_was_removed_or_put_again_counts_once() -> None:
    waiting = WaitingTasks(["a", "b"])
    waiting.put("a", 0.0)
    waiting.remove("a")
    waiting.remove("b")
    assert take(waiting, 1.0) is None
    for not_before_s in (0.0, 5.0, 2.0):
        waiting.put("a", not_before_s)
    assert take(waiting, 1.0) is None, "the last word counts"
    assert [take(waiting, 6.0), take(waiting, 6.0)] == ["a", None]


def test_it_does_what_a_scan_of_a_list_does() -> None:
    chance = random.Random(0)
    names = [f"t{number}" for number in range(20)]
    waiting, plain = WaitingTasks(names), dict[str, float]()
    for step in range(5_000):
        name, now_s = chance.choice(names), step / 10
        act = chance.choice(["put", "put", "remove", "take", "take"])
        if act == "put":
            plain[name] = now_s + chance.choice([0.0, 0.0, 3.0])
            waiting.put(name, plain[name])
        elif act == "remove":
            plain.pop(name, None)
            waiting.remove(name)
        else:
            expected = next((one for one in names if plain.get(one, now_s + 1) <= now_s), None)
            assert take(waiting, now_s) == expected
            plain.pop(expected, None)
        assert len(waiting) == len(plain)
