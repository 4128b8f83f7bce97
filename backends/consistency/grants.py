"""Who may work on which key at present: many readers or one writer, in the order in which they asked, and nobody during its delay.

Pure: no clock, no tasks. A ticket stands in the queue of each of its keys at once and holds none of them before it can have all, so
tickets of several keys wait for one another in one direction only (nobody holds what another waits for while it waits itself), and a
reader that comes later never overtakes a writer that waits. Keys have nothing to do with one another.

What a delay costs is an entry here. At most `delays_max` are kept; beyond that the ones that are the nearest to their ends go.
"""
from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from s3cfs.backends.progress import Progress

_NONE = Progress()


def _nobody() -> None:
    pass


@dataclass(eq=False, slots=True)
class Ticket:
    """Of one operation. Times are `doors.clock.monotonic`."""

    operation: str
    keys: tuple[str, ...]              # each once
    write: bool
    caller: str
    since: float                       # when it asked
    progress: Progress                 # of the call that it belongs to
    quiet: bool = False                # nobody waits for it: who comes later may go first
    granted: bool = False
    began: float = 0.0                 # when it was granted
    beside: bool = False               # a write, and another one of its keys was under way at the same time
    given_up: bool = False             # its caller has left, and it goes on
    until: float | None = None         # it has ended: up to when its keys are protected
    wake: Callable[[], None] = field(default=_nobody)    # look again: what it waits for has changed


class _Key:
    __slots__ = ("free_at", "holders", "last", "queue")

    def __init__(self) -> None:
        self.holders: dict[Ticket, None] = {}
        self.queue: dict[Ticket, None] = {}
        self.free_at = float("-inf")
        self.last: Ticket | None = None            # the write that the delay is for

    @property
    def is_written(self) -> bool:
        return any(ticket.write for ticket in self.holders)


class Grants:
    def __init__(self, delays_max: int) -> None:
        self._keys: dict[str, _Key] = {}
        self._delays: list[tuple[float, str]] = []     # a heap of ends, some of them outdated
        self._delays_max = delays_max
        self._cut_short = 0

    # ------------------------------------------------------------ asking and giving back

    def ask(self, ticket: Ticket, now: float) -> bool:
        """Take its place in the queues; whether it has its keys at once."""
        for key in ticket.keys:
            self._of(key).queue[ticket] = None
        return self.retry(ticket, now)

    def retry(self, ticket: Ticket, now: float) -> bool:
        """Whether a ticket that asked has its keys now."""
        if not ticket.granted and all(self._may(ticket, self._keys[key], now) for key in ticket.keys):
            self.force(ticket, now)
        return ticket.granted

    def _may(self, ticket: Ticket, here: _Key, now: float) -> bool:
        if now < here.free_at or (here.holders and (ticket.write or here.is_written)):
            return False
        for other in here.queue:
            if other is ticket:
                return True
            if (ticket.write or other.write) and (ticket.quiet or not other.quiet):
                return False               # it would overtake
        raise AssertionError("a ticket that does not stand in the queue")

    def force(self, ticket: Ticket, now: float) -> None:
        """It has its keys, whoever else has them; from its place in the queues, too."""
        for key in ticket.keys:
            here = self._of(key)
            here.queue.pop(ticket, None)
            for other in here.holders:
                if ticket.write and other.write:
                    ticket.beside = other.beside = True
            here.holders[ticket] = None
        ticket.granted, ticket.began = True, now

    def withdraw(self, ticket: Ticket, now: float) -> None:
        """Its caller waits no more; it was granted nothing."""
        for key in ticket.keys:
            self._keys[key].queue.pop(ticket, None)
            self._changed(key, now)

    def release(self, ticket: Ticket, now: float, delay_s: float = 0.0) -> None:
        """It has ended. The keys of a write are protected for so long."""
        ticket.until, ticket.progress, ticket.wake = now + delay_s, _NONE, _nobody       # it may be kept for as long as its delay
        for key in ticket.keys:
            here = self._keys[key]
            del here.holders[ticket]
            if delay_s > 0.0 and ticket.until > here.free_at:
                self._protect(key, here, ticket.until, now)
                here.last = ticket
            self._changed(key, now)

    def extend(self, key: str, now: float, delay_s: float) -> None:
        """Its delay lasts at least so long from now."""
        here = self._of(key)
        if now + delay_s > max(now, here.free_at):
            self._protect(key, here, now + delay_s, now)
        self._changed(key, now)

    def shorten(self, most_s: float, now: float) -> None:
        """No delay lasts longer than that from now, and all that wait look again."""
        for here in self._keys.values():
            here.free_at = min(here.free_at, now + most_s)
        self._delays = [(here.free_at, key) for key, here in self._keys.items() if here.free_at > now]
        heapq.heapify(self._delays)
        for key in list(self._keys):
            self._changed(key, now)

    # ------------------------------------------------------------ what is the case

    def in_the_way(self, ticket: Ticket) -> list[tuple[str, Ticket]]:
        """Others that have its keys and do not go together with it, each with a key."""
        return [(key, other) for key in ticket.keys if (here := self._keys.get(key)) is not None
                for other in here.holders if other is not ticket and (ticket.write or other.write)]

    def protected(self, ticket: Ticket, now: float) -> tuple[str, Ticket | None] | None:
        """One of its keys that is in its delay, and the write that this is for."""
        for key in ticket.keys:
            here = self._keys.get(key)
            if here is not None and now < here.free_at:
                return key, here.last
        return None

    def delay_left(self, ticket: Ticket, now: float) -> float:
        """Seconds until the last delay of its keys ends; 0 or less when none is on."""
        return max(self._keys[key].free_at for key in ticket.keys) - now

    def is_written(self, key: str) -> bool:
        here = self._keys.get(key)
        return here is not None and here.is_written

    def below(self, prefix: str, asked: float) -> tuple[list[Ticket], float]:
        """Writes there that are under way and had asked by then, and when the last delay of such a write ends."""
        writers: dict[Ticket, None] = {}
        until = float("-inf")
        for key, here in self._keys.items():
            if key.startswith(prefix):
                writers.update((ticket, None) for ticket in here.holders if ticket.write and ticket.since <= asked)
                if here.last is None or here.last.since <= asked:
                    until = max(until, here.free_at)
        return list(writers), until

    def counts(self, now: float) -> dict[str, int]:
        self.forget(now)
        waiting = {ticket for here in self._keys.values() for ticket in here.queue}
        holders = {ticket for here in self._keys.values() for ticket in here.holders}
        return {"reading": sum(not ticket.write for ticket in holders), "writing": sum(ticket.write for ticket in holders),
                "given_up": sum(ticket.given_up for ticket in holders), "waiting": len(waiting),
                "delayed": sum(now < here.free_at for here in self._keys.values()), "delays_cut_short": self._cut_short}

    # ------------------------------------------------------------ upkeep

    def forget(self, now: float) -> None:
        """Drop what has passed. Cheap: called often."""
        while self._delays and self._delays[0][0] <= now:
            self._drop_if_idle(heapq.heappop(self._delays)[1], now)

    def _of(self, key: str) -> _Key:
        here = self._keys.get(key)
        if here is None:
            here = self._keys[key] = _Key()
        return here

    def _protect(self, key: str, here: _Key, until: float, now: float) -> None:
        here.free_at = until
        heapq.heappush(self._delays, (until, key))
        self.forget(now)
        if len(self._delays) > self._delays_max:
            end, first = heapq.heappop(self._delays)
            if (other := self._keys.get(first)) is not None and other.free_at == end:
                other.free_at = now
                self._cut_short += 1
                self._changed(first, now)

    def _changed(self, key: str, now: float) -> None:
        if (here := self._keys.get(key)) is not None:
            for ticket in here.queue:
                ticket.wake()
            self._drop_if_idle(key, now)

    def _drop_if_idle(self, key: str, now: float) -> None:
        here = self._keys.get(key)
        if here is not None and not here.holders and not here.queue and here.free_at <= now:
            del self._keys[key]
