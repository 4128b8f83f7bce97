"""Waiting for one's turn: the tasks' side of grants.py. Who waits has one event and one timeout, and costs no thread and no slot."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio

from s3cfs.backends.consistency import bounds
from s3cfs.backends.consistency.bounds import Mode
from s3cfs.backends.consistency.clashes import Warnings
from s3cfs.backends.consistency.conditions import Conditions, Evidence, Kind
from s3cfs.backends.consistency.grants import Grants, Ticket
from s3cfs.backends.layer import Call, Lane
from s3cfs.doors import Doors

NAME = "consistency"
OLD = f"{NAME} old"                # in `Call.kept`: it had an old answer
LEAST_S = 0.001                    # what rounding leaves is less than a clock moves


class _Growing:
    """A moment that never goes back."""

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask, self._last = ask, -math.inf

    def __call__(self) -> float:
        self._last = max(self._last, self._ask())
        return self._last


class Turns:
    def __init__(self, conditions: Conditions) -> None:
        self.grants = Grants(bounds.DELAYS_KEPT)
        self.warnings = Warnings()
        self.clashes = self.held_back = 0
        self.held_back_s = 0.0
        self._conditions = conditions
        self._listings: dict[trio.Event, None] = {}    # that wait
        self._changes = 0                              # of bounds

    def stand_on(self, doors: Doors) -> None:
        self._doors = doors

    @property
    def now(self) -> float:
        return self._doors.clock.monotonic()

    @property
    def mode(self) -> Mode:
        return self._conditions.bounds.lock_mode

    @property
    def longest_s(self) -> float:
        """No delay is longer."""
        return self._conditions.bounds.lock_delay_most * (1.0 + self._conditions.bounds.lock_jitter)

    def delay_s(self) -> float:
        """Of a write that ends now."""
        delay_s = self._conditions.delay_s
        return delay_s + self._doors.random.uniform(0.0, self._conditions.bounds.lock_jitter * delay_s) if delay_s else 0.0

    def status(self) -> dict[str, Any]:
        return {**self.grants.counts(self.now), "held_back": self.held_back, "held_back_s": round(self.held_back_s, 1),
                "clashes": self.clashes}

    # ------------------------------------------------------------ of keys

    async def take(self, operation: str, keys: tuple[str, ...], write: bool, call: Call) -> Ticket:
        """The keys are the ticket's until `give_back`."""
        now, mode = self.now, self.mode
        ticket = Ticket(operation, keys, write, call.caller, now, call.progress, call.lane is Lane.QUIET)
        if mode is not Mode.BLOCK:
            if mode is Mode.WARN:
                self._warn(ticket, now, "it goes on", delays=True)
            self.grants.force(ticket, now)
        elif not self.grants.ask(ticket, now):
            await self._take_in_turn(ticket, call, now)
        return ticket

    async def _take_in_turn(self, ticket: Ticket, call: Call, since: float) -> None:
        self.held_back += 1
        self._warn(ticket, since, "it waits", delays=False)
        try:
            with call.progress.queued(_Growing(lambda: self._moved(self.grants.in_the_way(ticket), call))):
                await self._until(lambda now: self._left(ticket, now), f"{ticket.operation} of {ticket.keys[0]}", call, ticket)
        except BaseException:
            if ticket.granted:
                self.grants.release(ticket, self.now)
            else:
                self.grants.withdraw(ticket, self.now)
            raise
        finally:
            self.held_back_s += self.now - since

    def give_back(self, ticket: Ticket, delay_s: float = 0.0) -> None:
        self.grants.release(ticket, self.now, delay_s)
        if ticket.write:
            self._wake_listings()

    def _left(self, ticket: Ticket, now: float) -> float | None:
        if self.mode is not Mode.BLOCK:
            self.grants.force(ticket, now)
        return None if self.grants.retry(ticket, now) else self.grants.delay_left(ticket, now)

    # ------------------------------------------------------------ of listings

    async def before_listing(self, operation: str, prefix: str, asked: float, call: Call) -> None:
        """Until the writes below `prefix` that were under way when it was asked for have ended, and their delays."""
        writers, until = self.grants.below(prefix, asked)
        if self.mode is Mode.OFF or not (writers or self.now < until):
            return
        if self.mode is Mode.WARN:
            ticket = Ticket(operation, (prefix,), False, call.caller, asked, call.progress)
            self._clash(ticket, prefix, None, "a key below it is being written or in its delay; it goes on")
            return
        seen, since = self._changes, self.now

        def left(now: float) -> float | None:
            nonlocal until, seen
            if seen != self._changes:
                seen, until = self._changes, self.grants.below(prefix, asked)[1]
            if self.mode is not Mode.BLOCK:
                return None
            if under_way():
                return 0.0
            end = max(until, *(writer.until or until for writer in writers), until)
            return end - now if now < end else None

        def under_way() -> list[tuple[str, Ticket]]:
            return [(prefix, writer) for writer in writers if writer.until is None]

        self.held_back += 1
        try:
            with call.progress.queued(_Growing(lambda: self._moved(under_way(), call))):
                await self._until(left, f"{operation} of {prefix}", call, None)
        finally:
            self.held_back_s += self.now - since

    # ------------------------------------------------------------ waiting

    async def _until(self, left: Callable[[float], float | None], what: str, call: Call, waiter: Ticket | None) -> None:
        """Until `left(now)` is None. It says for how long to wait at least if nobody wakes it, 0: until somebody does."""
        began = now = self.now
        warn_at = began + self._conditions.bounds.lock_warn_after
        while (seconds := left(now)) is not None:
            woken = trio.Event()
            if waiter is None:
                self._listings[woken] = None
            else:
                waiter.wake = woken.set
            at_most = min(seconds if seconds > 0.0 else math.inf, warn_at - now)
            try:
                with trio.move_on_after(max(at_most, LEAST_S)) as scope:
                    await woken.wait()
            finally:
                self._listings.pop(woken, None)
            if scope.cancelled_caught:
                await self._doors.clock.sleep(0.0)       # by the door of time: a process that is stopped does not pass it
            now = self.now
            if now >= warn_at:
                self.warnings.say(now, what, f"{NAME}: {what} by {call.caller or 'somebody'} has been held back for {now - began:.0f} s")
                warn_at = math.inf

    def _moved(self, others: list[tuple[str, Ticket]], call: Call) -> float:
        """When something last moved of what it waits for."""
        if others:
            return max(other.progress.last for _, other in others)
        return -math.inf if OLD in call.kept else self.now

    def _wake_listings(self) -> None:
        for event in self._listings:
            event.set()

    def bounds_changed(self) -> None:
        self._changes += 1
        self.grants.shorten(self._conditions.delay_s * (1.0 + self._conditions.bounds.lock_jitter), self.now)
        self._wake_listings()

    # ------------------------------------------------------------ what is not serialised

    def _warn(self, ticket: Ticket, now: float, outcome: str, *, delays: bool) -> None:
        """Access beside a writer, a write beside a reader, and (`delays`) access within a delay."""
        others, protected = self.grants.in_the_way(ticket), self.grants.protected(ticket, now)
        if others:
            key, other = others[0]
            left = ", who has left," if other.given_up else ""
            text = f"{other.operation} by {other.caller or 'somebody'}{left} has been under way for {now - other.began:.1f} s; {outcome}"
            self._clash(ticket, key, now - other.began, text)
        elif delays and protected is not None:
            key, last = protected
            age_s = None if last is None else now - last.began
            text = "an old answer" if last is None else f"{last.operation} by {last.caller or 'somebody'} {age_s:.1f} s ago"
            self._clash(ticket, key, age_s, f"it is in the delay after {text}; {outcome}")

    def _clash(self, ticket: Ticket, key: str, age_s: float | None, text: str) -> None:
        self.clashes += 1
        text = f"{ticket.operation} of {key} by {ticket.caller or 'somebody'} is not serialised: {text}"
        self.warnings.say(self.now, key, f"{NAME}: {text}")
        self._conditions.tell(Evidence(Kind.CLASH, ticket.operation, key, age_s, text))
