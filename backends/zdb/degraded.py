"""Objects that are not as they should be, as far as this process has noticed: for the layer that makes them whole (care.py)."""
from __future__ import annotations

import threading
from collections import OrderedDict

KEPT = 10_000                      # the oldest ones go: a repair of everything finds them


class Degraded:
    """Keys, and why; the oldest first. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._why: OrderedDict[str, str] = OrderedDict()

    def note(self, key: str, why: str) -> None:
        with self._lock:
            self._why[key] = why
            if len(self._why) > KEPT:
                self._why.popitem(last=False)

    def forget(self, key: str) -> None:
        """It is whole."""
        with self._lock:
            self._why.pop(key, None)

    def all(self) -> dict[str, str]:
        with self._lock:
            return dict(self._why)

    def __len__(self) -> int:
        return len(self._why)
