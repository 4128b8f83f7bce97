"""What a mount knows of how its store behaves at present: the lock reads the delay here, and whoever sees evidence tells it here."""
from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from s3cfs.backends.consistency.bounds import Bounds, Mode
from s3cfs.errors import Corrupt, StoreError, Temporary, Throttled


class Stale(Temporary):
    """An answer that is older than what is known, by whoever knows: it is evidence and was told as such. Asked again it may be newer.

    `absent`: of an object that must be there it says that there is none.
    """

    def __init__(self, operation: str, key: str, cause: object = "", *, absent: bool = False) -> None:
        super().__init__(operation, key, cause)
        self.absent = absent


class Changed(Corrupt):
    """The store holds other bytes than were put, and nothing else was ever there, by whoever knows; told as evidence, too."""


class Kind(enum.StrEnum):
    """Of evidence."""

    WELL = "well"                  # looked at, and as it should be
    STALE = "stale"                # an answer that is older than what was written or deleted before
    GHOST = "ghost"                # what was deleted is shown again, or still
    LOST = "lost"                  # what must be there is not, though it had time to appear
    CORRUPT = "corrupt"            # other bytes than were written
    BUSY = "busy"                  # 429, 503
    FAILED = "failed"              # any other error that may be repeated
    CLASH = "clash"                # access to a key that was not serialised


@dataclass(frozen=True, slots=True)
class Evidence:
    kind: Kind
    operation: str                 # get, put, stat, delete, list, folders
    key: str
    age_s: float | None = None     # since the last write or delete of the key by this machine, where that is known
    text: str = ""                 # one line, for people


class Conditions:
    """Of one mount; event-loop thread only."""

    def __init__(self, bounds: Bounds, *, locks: bool = False) -> None:
        """`locks`: a lock keeps the delay."""
        self.bounds, self.locks = bounds, locks
        self.delay_s = bounds.lock_delay           # the protective delay at present, without jitter
        self._ears: list[Callable[[Evidence], None]] = []
        self._watchers: list[Callable[[], None]] = []

    @property
    def protective_s(self) -> float:
        """For how long after a write or delete the lock may hold back who asks for the key."""
        holds = self.locks and self.bounds.lock_mode is Mode.BLOCK
        return self.delay_s * (1.0 + self.bounds.lock_jitter) if holds else 0.0

    def listen(self, ear: Callable[[Evidence], None]) -> None:
        """It is called for all that anybody tells, at once; it must be quick and not raise."""
        self._ears.append(ear)

    def watch(self, watcher: Callable[[], None]) -> None:
        """It is called after each change of a bound by a person."""
        self._watchers.append(watcher)

    def tell(self, evidence: Evidence) -> None:
        for ear in self._ears:
            ear(evidence)

    def change(self, setting: str, value: str) -> None:
        """Another bound, at once; a delay outside its new bounds moves to the nearest. ConfigError."""
        bounds = self.bounds = self.bounds.changed(setting, value)
        wanted = bounds.lock_delay if setting == "lock-delay" else self.delay_s
        self.delay_s = min(max(wanted, bounds.lock_delay_least), bounds.lock_delay_most)
        for watcher in self._watchers:
            watcher()


def trouble(error: StoreError) -> Kind:
    """What an error that may pass is evidence of."""
    return Kind.BUSY if isinstance(error, Throttled) else Kind.FAILED
