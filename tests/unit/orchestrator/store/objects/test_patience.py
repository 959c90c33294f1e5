import logging

import pytest

from orchestrator.store.objects.patience import GaveUp, Patience

QUICK = Patience(total_s=5.0, first_wait_s=0.001, longest_wait_s=0.002)


class Flaky:
    """Fails some times, then works."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.num_calls = 0

    def __call__(self) -> str:
        self.num_calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


def is_transient(error: BaseException) -> bool:
    return isinstance(error, ConnectionError)


def test_what_passes_is_tried_until_it_works() -> None:
    action = Flaky(ConnectionError("refused"), ConnectionError("reset"))

    assert QUICK.run(action, is_transient) == "done"

    assert action.num_calls == 3


def test_what_stays_is_raised_at_once_as_it_is() -> None:
    action = Flaky(ConnectionError("refused"), ValueError("wrong"))

    with pytest.raises(ValueError, match="wrong"):
        QUICK.run(action, is_transient)

    assert action.num_calls == 2


def test_patience_ends_and_says_how_often_and_how_long() -> None:
    action = Flaky(*[ConnectionError("refused")] * 1000)

    with pytest.raises(GaveUp, match=r"refused \(tried \d+ times in \d+\.\d s\)") as caught:
        Patience(total_s=0.05, first_wait_s=0.02, longest_wait_s=0.02).run(action, is_transient)

    assert caught.value.num_tries == action.num_calls > 1
    assert isinstance(caught.value.error, ConnectionError)


def test_no_patience_is_one_try() -> None:
    action = Flaky(ConnectionError("refused"))

    with pytest.raises(GaveUp, match="tried once"):
        Patience(total_s=0.0).run(action, is_transient)

    assert action.num_calls == 1


def test_a_wait_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        QUICK.run(Flaky(ConnectionError("refused"), ConnectionError("reset")), is_transient)

    assert [record.getMessage() for record in caplog.records] == ["refused; trying again for up to 5 s"]
