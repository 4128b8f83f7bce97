"""Signs of life in the log, by a clock of their own: whatever uploads, transactions and the local disk are at.

A writer with something to say is never silent for long, so nobody takes it for dead; one with nothing to say signs off once and
is silent then, for nothing. It stays the writer until somebody else takes over, and asks before it relies on it again.

INVARIANT P1: while this mount has changes that are in no commit, and the store answers, the log is not silent for more than `every` + 5 s.
INVARIANT P2: after a RELEASE no fsync returns (the store answering) before a record of this writer is in the history again.
"""
from __future__ import annotations

from collections.abc import Callable

from s3cfs.doors import Doors
from s3cfs.history.health import Health
from s3cfs.history.logbook import Logbook
from s3cfs.history.signal import Signal


def promised_s(commit_interval_s: float, heartbeat_s: float) -> float:
    """How long a writer with this commit interval may be silent while it has something to say: it says so in its records (`every`), and
    whoever waits for silence waits for so much longer. 0: the heartbeat."""
    return commit_interval_s if commit_interval_s > heartbeat_s else 0.0


class Presence:
    """`busy`: whether this mount has something to say."""

    def __init__(self, doors: Doors, health: Health, logbook: Logbook, busy: Callable[[], bool], *, every_s: float,
                 release_after_idle_s: float) -> None:
        """`every_s`: as the writer's records promise it; 0: the heartbeat."""
        self._doors, self._health, self._logbook, self._busy = doors, health, logbook, busy
        self._every_s = every_s or doors.limits.heartbeat_s
        self._release_after_idle_s = release_after_idle_s
        self._asked = Signal()
        self._answered = Signal()
        self._tickets = self._settled = 0         # questions, and how many of them are answered; at most one is open
        self._asked_at = 0.0                      # monotonic, of the open one
        self._busy_since = doors.clock.monotonic()
        health.on_change.append(self._answered.pulse)

    async def run(self) -> None:
        while True:
            if self._tickets == self._settled:
                await self._asked.wait(self._doors.limits.heartbeat_s / 8)
            tickets, now = self._tickets, self._doors.clock.monotonic()
            if not self._busy():
                self._busy_since = now
            if self._logbook.in_office:
                await self._look(now, asked=tickets > self._settled)
            self._settled = tickets
            self._answered.pulse()

    async def _look(self, now: float, *, asked: bool) -> None:
        silent_s, busy_s = now - self._logbook.last_append, now - self._busy_since
        if asked or busy_s > 0:
            due = busy_s >= self._every_s / 2 and (silent_s >= self._every_s or self._logbook.signed_off)    # a commit may be coming
            if due or (asked and self._logbook.signed_off):
                await self._logbook.sign_of_life()
        elif silent_s >= self._release_after_idle_s and not self._logbook.signed_off:
            await self._logbook.sign_off(final=False)

    async def confirm(self) -> None:
        """P2: after a RELEASE, one answer of the store that this is still the writer; all who wait share it. DataError when it is not.

        On a store that does not answer within `store_timeout_s` the local acknowledgement has to do, and the state says so; whoever comes
        then does not wait once more for the same answer.
        """
        if not self._logbook.in_office:
            self._health.refuse_if_ended()        # somebody took office while the local disk took its time
            return
        if not self._logbook.signed_off:
            return
        if self._tickets == self._settled:
            self._tickets += 1
            self._asked_at = self._doors.clock.monotonic()
            self._asked.pulse()
        ticket = self._tickets
        while self._settled < ticket and self._health.writable:
            left_s = self._asked_at + self._doors.limits.store_timeout_s - self._doors.clock.monotonic()
            if left_s <= 0:
                self._health.away("log", "the store does not answer; whether another writer took over is not known")
                return
            await self._answered.wait(left_s)
        self._health.refuse_if_ended()
