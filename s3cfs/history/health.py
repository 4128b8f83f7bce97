"""Whether a mount may write, and if not why: one object, one way to change it."""
from __future__ import annotations

import enum
import logging
from collections.abc import Callable

from s3cfs.errors import DataError, Deposed, ReadOnly, S3cfsError

log = logging.getLogger(__name__)


class State(enum.StrEnum):
    OK = "ok"
    AWAY = "store-away"           # the store does not answer; commits queue up locally
    WAITING = "waiting"           # and there is no room for more: writers wait
    READ_ONLY = "read-only"       # as asked for
    DEPOSED = "deposed"           # another writer took over
    FAILED = "failed"             # the local disk or database failed


FINAL = frozenset({State.READ_ONLY, State.DEPOSED, State.FAILED})


class Health:
    """INVARIANT H1: a final state is never left. `on_change` is called after every transition."""

    def __init__(self, *, read_only: bool) -> None:
        self.state = State.READ_ONLY if read_only else State.OK
        self.message = ""
        self.failure: Exception | None = None
        self.on_change: list[Callable[[], None]] = []
        self.volatile = False             # the local disk keeps nothing any more: durable is what the store has
        self._silent: dict[str, str] = {}         # who has no answer from the store, and what was said last

    @property
    def writable(self) -> bool:
        return self.state not in FINAL

    def enter(self, state: State, message: str = "") -> None:
        """The one transition."""
        if self.state in FINAL or (self.state, self.message) == (state, message):
            return
        (log.error if state in FINAL else log.warning if message else log.info)("state %s: %s", state, message or "as it should be")
        self.state, self.message = state, message
        for call in self.on_change:
            call()

    def away(self, who: str, message: str) -> None:
        """The store does not answer `who` (one of the parts that ask it)."""
        self._silent[who] = message
        if self.state is State.OK:
            self.enter(State.AWAY, message)

    def back(self, who: str) -> None:
        """It does again."""
        if self._silent.pop(who, None) is not None and self.state is State.AWAY:
            self.settle()

    @property
    def store_silent(self) -> bool:
        return bool(self._silent)

    def settle(self) -> None:
        """Nobody waits for room any more."""
        message = next(iter(self._silent.values()), None)
        self.enter(State.OK if message is None else State.AWAY, message or "")

    def fail(self, error: Exception) -> None:
        """Writing ends: what was acknowledged as durable is kept, the mount goes on reading."""
        if self.failure is None:
            self.failure = error
        self.enter(State.DEPOSED if isinstance(error, Deposed) else State.FAILED, str(error) or repr(error))

    def check(self) -> None:
        """ReadOnly when nothing may be written."""
        if self.state in FINAL:
            raise ReadOnly(self.message or "mounted read-only")

    def refuse_if_ended(self) -> None:
        """DataError when writing has ended by itself: what was not durable then never will be, and no fsync may say so."""
        if self.state in (State.FAILED, State.DEPOSED):
            raise DataError(self.message)

    def error(self) -> S3cfsError:
        """Why writing has ended, to be raised again."""
        if isinstance(self.failure, S3cfsError):
            return type(self.failure)(*self.failure.args)
        return ReadOnly(self.message or "mounted read-only")
