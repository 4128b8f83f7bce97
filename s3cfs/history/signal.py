"""Waking tasks: the one way in which the parts of this floor tell each other that something moved."""
from __future__ import annotations

import math

import trio


class Signal:
    """`pulse` wakes everybody who waits at that moment, and nobody later: look first, then wait, with nothing awaited in between."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def pulse(self) -> None:
        event, self._event = self._event, trio.Event()
        event.set()

    async def wait(self, at_most_s: float = math.inf) -> None:
        with trio.move_on_after(at_most_s):
            await self._event.wait()
