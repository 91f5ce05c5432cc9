"""A stop signal waits for a step and breaks off a look."""

import os
import signal

import pytest

from ssl_jax.stop import Stopped, StopSignals


@pytest.fixture
def before():
    """The signals that reach whoever had them before."""
    reached = []
    handlers = {number: signal.signal(number, lambda number, frame: reached.append(number)) for number in SIGNALS}
    yield reached
    for number, handler in handlers.items():
        signal.signal(number, handler)


SIGNALS = (signal.SIGTERM, signal.SIGINT)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_second_goes_to_who_had_it_before(before, number):
    with StopSignals().caught() as signals:
        assert signals.received == ""
        send(number)
        assert signals.received == number.name and before == []
        send(number)
        assert before == [number] and signals.received == number.name
    send(number)
    assert before == [number, number], "given back at the end"


def test_a_signal_breaks_off_what_may_be_broken_off(before):
    with StopSignals().caught() as signals:
        with pytest.raises(Stopped), signals.interrupting():
            try:
                send()
            except Exception as error:  # as an evaluator might
                raise AssertionError("taken for an error") from error
            raise AssertionError("went on")
        assert signals.received == "SIGTERM" and before == []
        with pytest.raises(Stopped), signals.interrupting():
            raise AssertionError("began although a signal had come")


def test_afterwards_a_signal_is_only_noted(before):
    with StopSignals().caught() as signals:
        with signals.interrupting():
            pass
        send()
        assert signals.received == "SIGTERM"
