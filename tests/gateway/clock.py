"""The gateway's time: real, or moved by hand, so that a test of staleness does not sleep."""
from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since anything."""

    def wait(self, seconds: float, ended: threading.Event) -> None:
        """Until so much has passed by this clock, or `ended` is set."""


class RealClock:
    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float, ended: threading.Event) -> None:
        ended.wait(seconds)


class HandClock:
    """Stands still until `advance`."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._moved = threading.Condition()

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        with self._moved:
            self._now += seconds
            self._moved.notify_all()

    def wait(self, seconds: float, ended: threading.Event) -> None:
        until = self._now + seconds
        with self._moved:
            while self._now < until and not ended.is_set():
                self._moved.wait(0.1)          # `ended` is no matter of this condition
