"""What the checker may spend: requests in any minute, bytes in any day. Pure: its caller brings the time."""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

MINUTE_S = 60.0
HOUR_NS = 3600 * 10**9
DAY_HOURS = 24


class Budget:
    """Requests by a clock that never goes back, bytes by the hours of the wall clock, so that they are known at the next mount."""

    def __init__(self) -> None:
        self._requests: deque[float] = deque()     # when, of the last minute
        self._bytes: dict[int, int] = {}           # by hour since the epoch

    def wait_s(self, now: float, per_minute: int) -> float:
        """Seconds until one more request is within the budget; infinite when none ever is."""
        while self._requests and self._requests[0] <= now - MINUTE_S:
            self._requests.popleft()
        if per_minute <= 0:
            return math.inf
        over = len(self._requests) - per_minute
        return 0.0 if over < 0 else self._requests[over] + MINUTE_S - now

    def spend_request(self, now: float) -> None:
        self._requests.append(now)

    def spent_bytes(self, time_ns: int) -> int:
        """In the last 24 hours, whole ones. Where the clock went back, hours to come count as long as they are less than a day away."""
        hour = time_ns // HOUR_NS
        self._bytes = {then: count for then, count in self._bytes.items() if abs(then - hour) < DAY_HOURS}
        return sum(self._bytes.values())

    def spend_bytes(self, count: int, time_ns: int) -> None:
        hour = time_ns // HOUR_NS
        self._bytes[hour] = self._bytes.get(hour, 0) + count

    # ------------------------------------------------------------ over a remount

    def kept(self) -> dict[str, int]:
        return {str(hour): count for hour, count in self._bytes.items()}

    def take_over(self, kept: Mapping[str, int]) -> None:
        """What an earlier mount has spent. ValueError, TypeError."""
        for hour, count in kept.items():
            self._bytes[int(hour)] = self._bytes.get(int(hour), 0) + max(0, int(count))
