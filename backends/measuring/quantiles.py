"""Many values in little room: counted at three digits, so that a run of weeks takes no more memory than one of hours."""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

DIGITS = 3
TIMES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
FASTS = {"min": 0.0, "p1": 0.01, "p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}       # where little is the bad end


class Quantiles:
    """Values >= 0 of any unit. An error of at most half a per cent comes from the rounding."""

    def __init__(self, counts: Mapping[float, int] | None = None) -> None:
        self._counts: Counter[float] = Counter(counts or {})

    def add(self, value: float, times: int = 1) -> None:
        self._counts[_rounded(value)] += times

    def merge(self, other: Quantiles) -> None:
        self._counts.update(other._counts)

    @property
    def count(self) -> int:
        return self._counts.total()

    @property
    def above_zero(self) -> int:
        return self.count - self._counts[0.0]

    @property
    def most(self) -> float | None:
        return max(self._counts, default=None)

    def at(self, part: float) -> float | None:
        """The least value that `part` (0 to 1) of all values do not exceed. None: there are none."""
        left = max(1, math.ceil(part * self.count - 1e-9))
        for value in sorted(self._counts):
            left -= self._counts[value]
            if left <= 0:
                return value
        return None

    def shown(self, parts: Mapping[str, float] = TIMES) -> dict[str, float | int | None]:
        """The count, and quantiles by their names."""
        return {"count": self.count, **{name: self.at(part) for name, part in parts.items()}}

    def raw(self) -> dict[str, int]:
        """For `from_raw`, as JSON has it."""
        return {f"{value:g}": count for value, count in sorted(self._counts.items()) if count}

    @classmethod
    def from_raw(cls, raw: Mapping[str, int]) -> Quantiles:
        return cls({float(value): int(count) for value, count in raw.items()})


def _rounded(value: float) -> float:
    return float(f"{max(0.0, value):.{DIGITS}g}")
