"""Any backend, with the consistency lock and the checker above it: where its class asks for that, or its owner."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from s3cfs.backends.base import Backend
from s3cfs.backends.consistency import bounds
from s3cfs.backends.consistency.checker import Checker
from s3cfs.backends.consistency.conditions import Conditions
from s3cfs.backends.consistency.lock import Lock
from s3cfs.backends.layer import Layer
from s3cfs.backends.url import Options, StoreUrl
from s3cfs.backends.wrapper import Wrapper

LOCK, CHECKER = "consistency-lock", "checker"
OPTIONS: Mapping[str, str] = {
    LOCK: "keep the operations on each key apart, with a protective delay after writes and deletes",
    CHECKER: "look again at what was written and deleted, and let the delay follow what is seen",
    **bounds.OPTIONS,
}


class Guarded(Wrapper):
    """`inner` with lock, checker or both: layers above its own."""

    def __init__(self, inner: Backend, conditions: Conditions, *, lock: bool, checker: bool) -> None:
        super().__init__(inner)
        self.conditions, self._lock, self._checker = conditions, lock, checker

    def layers(self) -> Sequence[Layer]:
        above: list[Layer] = []
        if self._checker:
            above.append(Checker(self.conditions))
        if self._lock:
            above.append(Lock(self.conditions))
        return (*above, *self.inner.layers())


def guarded(inner: Backend, url: StoreUrl, values: Mapping[str, str], *, default: bool) -> Backend:
    """`inner` as the options that every backend has want it; `default`: whether lock and checker are on when nobody says. ConfigError."""
    options = Options(url, values)
    lock, checker = (options.flag(name) if name in values else default for name in (LOCK, CHECKER))
    limits = bounds.from_options(values)
    return Guarded(inner, Conditions(limits, locks=lock), lock=lock, checker=checker) if lock or checker else inner
