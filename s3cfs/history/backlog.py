"""The outbox as its owners see it: what is in a transaction and not yet in a record. Plain numbers; the rows are in the database."""
from __future__ import annotations

from collections import deque


class Backlog:
    def __init__(self) -> None:
        self._rows: deque[tuple[int, float, int, int]] = deque()     # id, monotonic time of its oldest change, bytes, how many rows
        self.rows = self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, row: int, since: float, size: int, count: int = 1) -> None:
        """`count` rows, of which this is the last."""
        self._rows.append((row, since, size, count))
        self.rows += count
        self.bytes += size

    def drop(self, upto: int) -> None:
        """A record took them along."""
        while self._rows and self._rows[0][0] <= upto:
            _, _, size, count = self._rows.popleft()
            self.rows -= count
            self.bytes -= size

    @property
    def oldest(self) -> float | None:
        """Monotonic time of the oldest change."""
        return self._rows[0][1] if self._rows else None
