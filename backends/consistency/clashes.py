"""Says in the log what was not serialised, and what waited for long: a line for each key now and then, and not too many lines in all."""
from __future__ import annotations

import logging
from collections import OrderedDict, deque

from s3cfs.backends.consistency import bounds

log = logging.getLogger(__name__)

WINDOW_S = 60.0


class Warnings:
    def __init__(self) -> None:
        self._of_keys: OrderedDict[str, float] = OrderedDict()       # when one was warned of last
        self._lately: deque[float] = deque()
        self.silent = 0            # that were not told

    def say(self, now: float, key: str, text: str) -> None:
        while self._of_keys and now - next(iter(self._of_keys.values())) > bounds.WARNED_AGAIN:
            self._of_keys.popitem(last=False)
        while self._lately and now - self._lately[0] > WINDOW_S:
            self._lately.popleft()
        if key in self._of_keys or len(self._lately) >= bounds.WARNINGS:
            self.silent += 1
            return
        self._of_keys[key] = now
        self._lately.append(now)
        log.warning("%s%s", text, f" ({self.silent} more were not told)" if self.silent else "")
        self.silent = 0
