"""One signal ends an endpoint, and a second one does not break into its clean-up."""

import signal

import pytest

from orchestrator.cluster.signals import deferred_signals, interrupting_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_and_the_next_is_ignored(number: int):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    cleaned_up = False
    with interrupting_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        cleaned_up = True
    assert cleaned_up
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_deferred_signal_arrives_when_the_block_is_done():
    finished = []

    def work() -> None:
        with deferred_signals():
            signal.raise_signal(signal.SIGTERM)
            finished.append(True)

    with interrupting_signals(), pytest.raises(KeyboardInterrupt):
        work()
    assert finished


def test_a_deferred_signal_also_arrives_when_the_block_fails():
    def fail() -> None:
        with deferred_signals():
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("broken off")

    with interrupting_signals(), pytest.raises(KeyboardInterrupt):
        fail()


def test_handlers_that_the_block_puts_in_place_are_taken_away():
    before = signal.getsignal(signal.SIGTERM)
    with deferred_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == before
