"""What was counted: for each change and way of asking, and for each hour of the day (UTC)."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from s3cfs.backends.measuring.quantiles import Quantiles
from s3cfs.errors import Corrupt, StoreError, Temporary, Throttled

K = TypeVar("K")
V = TypeVar("V")

HOUR_NS = 3_600_000_000_000
WRONG_MAX = 20                     # texts of answers that were never true


@dataclass
class Shown:
    """Of one change (put, overwrite, delete) and one view (get, stat, list, folders). Seconds since the store acknowledged the change."""

    delays: Quantiles = field(default_factory=Quantiles)     # until it was shown; 0: the first look saw it
    settled: Quantiles = field(default_factory=Quantiles)    # of those: until the last old answer that was met was followed by a new one
    never: int = 0                                           # not within the time looked, which is then what `delays` has
    came_back: int = 0                                       # an old answer after a new one

    def raw(self) -> dict[str, Any]:
        return {"delays": self.delays.raw(), "settled": self.settled.raw(), "never": self.never, "came_back": self.came_back}

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Shown:
        return cls(Quantiles.from_raw(raw["delays"]), Quantiles.from_raw(raw["settled"]), int(raw["never"]), int(raw["came_back"]))


QUANTILES = ("delays", "retry_after_s", "put_mb_s", "get_mb_s", "put_s", "get_s")


@dataclass
class Hour:
    """`counts`: changes, requests, ghosts (came back, or did not take), and troubles by their name."""

    counts: Counter[str] = field(default_factory=Counter)
    delays: Quantiles = field(default_factory=Quantiles)          # of all changes and views, seconds
    retry_after_s: Quantiles = field(default_factory=Quantiles)
    put_mb_s: Quantiles = field(default_factory=Quantiles)        # of the objects that are put and got for it, 10^6 bytes a second
    get_mb_s: Quantiles = field(default_factory=Quantiles)
    put_s: Quantiles = field(default_factory=Quantiles)           # how long each of them took
    get_s: Quantiles = field(default_factory=Quantiles)

    def merge(self, other: Hour) -> None:
        self.counts.update(other.counts)
        for name in QUANTILES:
            getattr(self, name).merge(getattr(other, name))

    def raw(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), **{name: getattr(self, name).raw() for name in QUANTILES}}

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Hour:
        return cls(Counter(raw["counts"]), **{name: Quantiles.from_raw(raw[name]) for name in QUANTILES})


def trouble(error: StoreError) -> str:
    """"throttled" (429, 503), "server" (another 5xx), "broken" (no answer: closed, silent, refused), "corrupt" or "other"."""
    if isinstance(error, Throttled):
        return "throttled"
    if isinstance(error, Corrupt):
        return "corrupt"
    if (error.status or 0) >= 500:
        return "server"
    return "broken" if isinstance(error, Temporary) and error.status is None else "other"


def _made(found: dict[K, V], key: K, make: Callable[[], V]) -> V:
    if key not in found:
        found[key] = make()
    return found[key]


TROUBLES = ("throttled", "server", "broken", "corrupt", "other")


@dataclass
class Tally:
    shown: dict[tuple[str, str], Shown] = field(default_factory=dict)
    hours: dict[int, Hour] = field(default_factory=dict)          # 0 to 23, UTC
    latency: dict[str, Quantiles] = field(default_factory=dict)   # by operation: seconds of what was answered, of small objects
    measured_s: float = 0.0
    did_not_take: int = 0                                         # deletes that were acknowledged, and the object stayed
    cut: int = 0                                                  # keys whose life the end of the run cut short
    wrong: list[str] = field(default_factory=list)                # answers that were true at no time
    last_error: str = ""

    def hour(self, time_ns: int) -> Hour:
        return _made(self.hours, time_ns // HOUR_NS % 24, Hour)

    @property
    def all_hours(self) -> Hour:
        whole = Hour()
        for hour in self.hours.values():
            whole.merge(hour)
        return whole

    def of(self, change: str, view: str) -> Shown:
        return _made(self.shown, (change, view), Shown)

    def answered(self, operation: str, seconds: float) -> None:
        _made(self.latency, operation, Quantiles).add(seconds)

    def note_trouble(self, hour: Hour, error: StoreError) -> None:
        hour.counts[trouble(error)] += 1
        self.last_error = str(error)
        if isinstance(error, Throttled) and error.retry_after is not None:
            hour.retry_after_s.add(error.retry_after)

    def note_wrong(self, text: str) -> None:
        if len(self.wrong) < WRONG_MAX:
            self.wrong.append(text)

    def raw(self) -> dict[str, Any]:
        """All of it as JSON has it; `from_raw` goes on from there."""
        return {
            "shown": {f"{change} {view}": shown.raw() for (change, view), shown in self.shown.items()},
            "hours": {str(number): hour.raw() for number, hour in self.hours.items()},
            "latency": {operation: found.raw() for operation, found in self.latency.items()},
            "measured_s": self.measured_s, "did_not_take": self.did_not_take, "cut": self.cut, "wrong": self.wrong,
        }

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Tally:
        """Any of KeyError, ValueError, TypeError, AttributeError where it is none."""
        shown = {}
        for words, found in raw["shown"].items():
            change, view = words.split()
            shown[change, view] = Shown.from_raw(found)
        return cls(shown, {int(number): Hour.from_raw(found) for number, found in raw["hours"].items()},
                   {operation: Quantiles.from_raw(found) for operation, found in raw["latency"].items()},
                   float(raw["measured_s"]), int(raw["did_not_take"]), int(raw["cut"]), [str(text) for text in raw["wrong"]])
