import signal
import threading

import pytest

from orchestrator.cluster.signals import catch_interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_the_flag_and_the_second_raises(number: int) -> None:
    before = signal.getsignal(number)
    said: list[str] = []
    with catch_interruption(lambda: said.append("stopping")) as interruption:
        assert not interruption.is_set()
        signal.raise_signal(number)
        assert interruption.is_set()
        assert said == ["stopping"], "before anything is waited for"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert said == ["stopping"]
    assert signal.getsignal(number) is before


def test_other_threads_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with catch_interruption() as interruption:
            seen.append((interruption.is_set(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
