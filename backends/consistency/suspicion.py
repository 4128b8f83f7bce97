"""A storm: many calls that failed within a minute. When it is over, what was written in it is worth a look."""
from __future__ import annotations

from collections import deque

MINUTE_S = 60.0
STORM = 5                          # failures in a minute


class Storm:
    def __init__(self) -> None:
        self._failed: deque[float] = deque(maxlen=STORM)
        self._now = False

    def failed(self, now: float) -> None:
        self._failed.append(now)
        self._now = self._now or (len(self._failed) == STORM and now - self._failed[0] < MINUTE_S)

    def over(self) -> bool:
        """Something went well: whether that ends a storm."""
        was, self._now = self._now, False
        if was:
            self._failed.clear()
        return was
