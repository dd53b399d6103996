"""Ctrl-C that ends work only after the current step."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType


@contextlib.contextmanager
def interruptible(
    signals: Sequence[signal.Signals] = (signal.SIGINT,), told: str | None = None
) -> Iterator[Callable[[], bool]]:
    """Within it the first signal is only noted: the function that it yields then returns True. A second Ctrl-C
    interrupts at once; launchers and schedulers may each send a termination signal, so that a second of these does not.

    In a thread other than the main one, which gets no signals, nothing is ever noted.

    Args:
        signals: the signals that are noted. Default Ctrl-C alone.
        told: a text that is written to what stderr is now, at the first of them. Default None, nothing.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped.is_set
        return

    try:
        place = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        # something that is no file stands in its place
        place = 2

    def handle(number: int, frame: FrameType | None) -> None:
        if stopped.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopped.set()
        if told is not None:
            # not print: the signal may have come in the middle of one
            os.write(place, told.encode())

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield stopped.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
