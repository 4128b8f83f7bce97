"""No read of /dev/fuse sleeps for long.

A loop waits until /dev/fuse is readable and reads it then. When the only request is withdrawn in between (its client was killed), the
kernel's read blocks, and with it the whole process: pyfuse3 reads with the interpreter's lock held. O_NONBLOCK would not do:
pyfuse3 raises on EAGAIN, and the worker that raised never frees its buffer (3.4 and 3.5). What it takes well is EINTR, libfuse's word
for "nothing this time". So while a loop may be reading a timer sends SIGALRM again and again; it interrupts a read that blocks and is
nothing to anybody else (Python repeats its own calls, PEP 475).
"""
from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

EVERY_S = 0.02          # so long a read may block; 50 signals a second cost a busy loop 0.1 %


class ReadAlarm:
    """`arm` before a read, `disarm` before a wait that needs no read: armed already, or not armed, both cost nothing."""

    def __init__(self) -> None:
        self._armed = False

    def arm(self) -> None:
        if not self._armed:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)

    def disarm(self) -> None:
        if self._armed:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def read_alarm() -> Iterator[ReadAlarm]:
    """For the main thread, whose reads they are: the kernel gives a signal to the process to its first thread, if it takes it."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    alarm = ReadAlarm()
    try:
        yield alarm
    finally:
        alarm.disarm()
        signal.signal(signal.SIGALRM, before)
