"""Stop signals: noted while a step runs, so that it ends whole; raised where a long look may be broken off."""

import contextlib
import signal
from collections.abc import Iterator


class Stopped(BaseException):
    """A stop signal came while it may interrupt; no `except Exception` of an evaluator takes it."""


class StopSignals:
    """What becomes of SIGTERM and SIGINT while a run trains: the second one ends the process at once."""

    def __init__(self):
        self._received: list[int] = []
        self._raises = False

    @property
    def received(self) -> str:
        """The name of the signal that came, "" as long as none did."""
        return signal.Signals(self._received[0]).name if self._received else ""

    @contextlib.contextmanager
    def caught(self) -> Iterator["StopSignals"]:
        """Takes the signals over from here to the end of the block; in the main thread only."""

        def note(number, frame):
            del frame
            self._received.append(number)
            for each, handler in before.items():
                signal.signal(each, handler)
            if self._raises:
                raise Stopped

        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """In this block a signal raises `Stopped`; one that came before raises it at once."""
        self._raises = True
        try:
            if self._received:
                raise Stopped
            yield
        finally:
            self._raises = False
