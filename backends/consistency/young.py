"""Small bodies that were put and acknowledged a moment ago: who reads one during the key's delay gets it from here and does not wait."""
from __future__ import annotations

from collections import OrderedDict

from s3cfs.backends.consistency import bounds
from s3cfs.backends.types import Body


class Young:
    """Of the last puts, at most `bounds.YOUNG_BODIES` bytes."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[str, tuple[float, Body]] = OrderedDict()
        self._size = 0

    def keep(self, key: str, data: Body, until: float) -> None:
        """It was acknowledged, and its delay lasts until then."""
        self.forget(key)
        if len(data) <= bounds.SMALL_BODY:
            self._bodies[key] = until, data
            self._size += len(data)
            while self._size > bounds.YOUNG_BODIES:
                self.forget(next(iter(self._bodies)))

    def forget(self, key: str) -> None:
        if key in self._bodies:
            self._size -= len(self._bodies.pop(key)[1])

    def of(self, key: str, now: float) -> Body | None:
        """What the key holds, while it is in its delay."""
        while self._bodies and next(iter(self._bodies.values()))[0] <= now:
            self.forget(next(iter(self._bodies)))
        until, data = self._bodies.get(key, (now, None))
        return data if now < until else None
