"""Calls on several servers at once, where nobody waits for a silent one longer than needed.

A `Round` belongs to one thread: it starts calls, takes their outcomes as they come, and may leave while some are under way. Those go on
in their threads, and what they answer is dropped. What moves in any of them has moved for the thread that waits (progress.py).
"""
from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Generic, NamedTuple, TypeVar, cast

from s3cfs.backends.progress import losses_told_to, lost, moved, told_to
from s3cfs.backends.zdb.words import Trouble

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

THREADS_MAX = 512                  # a silent server keeps some of them for as long as a call may be silent
IDLE_S = 30.0                      # a thread without work ends
CLOSE_S = 6.0                      # how long `close` waits: a connection that is just being made cannot be woken


class Done(NamedTuple, Generic[K, T]):
    """The outcome of one call: a value, or the Trouble that it met."""

    name: K
    value: T | None
    trouble: Trouble | None


@dataclass(slots=True)
class Outcome(Generic[K, T]):
    """Of several. What is in none of these was not asked, or has not answered."""

    good: dict[K, T] = field(default_factory=dict)
    poor: dict[K, T] = field(default_factory=dict)         # answers that were not what was wanted
    bad: dict[K, Trouble] = field(default_factory=dict)

    def note(self, done: Done[K, T], is_good: Callable[[T], bool] = lambda value: True) -> bool:
        """Whether it is a good one."""
        if done.trouble is not None:
            self.bad[done.name] = done.trouble
            return False
        value = cast(T, done.value)
        good = is_good(value)
        (self.good if good else self.poor)[done.name] = value
        return good


class Fanout:
    """The threads of it, made when they are needed. They keep nobody from ending."""

    def __init__(self, threads: int = THREADS_MAX) -> None:
        self._most = threads
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0                                 # threads that wait and are promised to no job
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def start(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, daemon=True, name="s3cfs zdb")
                self._threads.add(thread)
                thread.start()
            self._jobs.put(job)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if not self._idle:
                        continue                       # promised to a job that is about to come
                    self._idle -= 1
                    self._threads.discard(threading.current_thread())
                    return
            if job is None:
                return
            job()
            del job                                    # and with it what it holds
            with self._lock:
                self._idle += 1

    def round(self) -> Round[K, T]:
        return Round(self)

    def all(self, names: Iterable[K], work: Callable[[K], T]) -> Outcome[K, T]:
        """The work on each, to the end of the last."""
        made: Round[K, T] = Round(self)
        for name in names:
            made.start(name, partial(work, name))
        outcome: Outcome[K, T] = Outcome()
        while (done := made.next()) is not None:
            outcome.note(done)
        return outcome

    def first(self, needed: int, names: Iterable[K], work: Callable[[K], T], delay_s: float,
              is_good: Callable[[T], bool] = lambda value: True) -> Outcome[K, T]:
        """Until `needed` of them are good, or no more can be. The first `needed` names are asked at once, another one for each that is not
        good, and all the others after `delay_s`. Work may also say itself that its value is not good, by Trouble."""
        made: Round[K, T] = Round(self)
        outcome: Outcome[K, T] = Outcome()
        left = iter(names)

        def ask(most: int | None) -> None:
            for name in islice(left, most):
                made.start(name, partial(work, name))

        ask(needed)
        until: float | None = time.monotonic() + delay_s
        while len(outcome.good) < needed and made.pending:
            done = made.next(until=until)
            if done is None:
                until = None
                ask(None)
            elif not outcome.note(done, is_good):
                ask(1)
        made.abandon()
        return outcome

    def close(self) -> None:
        """Waits for the threads, whose calls end soon where the links have been closed before."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            for _ in threads:
                self._jobs.put(None)
        until = time.monotonic() + CLOSE_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


class Round(Generic[K, T]):
    """Some calls at once. `pending`: the names of those that have not ended."""

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self._news = threading.Condition()
        self._ended: list[tuple[K, T | None, BaseException | None]] = []
        self._moved = self._lost = self._abandoned = False
        self.pending: set[K] = set()

    def start(self, name: K, call: Callable[[], T]) -> None:
        if name in self.pending:
            raise ValueError(f"{name} is under way")
        self.pending.add(name)
        self._fanout.start(lambda: self._run(name, call))

    def _run(self, name: K, call: Callable[[], T]) -> None:
        value: T | None = None
        error: BaseException | None = None
        if self._abandoned:
            return
        try:
            with told_to(self._note_moved), losses_told_to(self._note_lost):
                value = call()
        except BaseException as met:                   # whoever waits raises what is no Trouble
            error = met
        with self._news:
            self._ended.append((name, value, error))
            self._news.notify()

    def _note_moved(self) -> None:
        with self._news:
            self._moved = True
            self._news.notify()

    def _note_lost(self) -> None:
        with self._news:
            self._lost = True

    def abandon(self) -> None:
        """What has not begun is dropped, and what is under way is nobody's any more."""
        self._abandoned = True
        self.pending.clear()

    def next(self, silence_s: float | None = None, *, until: float | None = None) -> Done[K, T] | None:
        """The next outcome. None: nothing is under way; or nothing has moved for `silence_s`; or it is later than `until` (monotonic).

        An error that is no Trouble is raised as it is.
        """
        if not self.pending:
            return None
        quiet_since = time.monotonic()
        while True:
            with self._news:
                if not self._ended and not self._moved:
                    self._news.wait(_left(quiet_since, silence_s, until))
                ended = self._ended.pop(0) if self._ended else None
                has_moved, self._moved = self._moved, False
                has_lost, self._lost = self._lost, False
            if has_moved:
                quiet_since = time.monotonic()
                moved()
            if has_lost:
                lost()
            if ended is not None:
                name, value, error = ended
                self.pending.discard(name)
                if error is not None and not isinstance(error, Trouble):
                    raise error
                return Done(name, value, error)
            left = _left(quiet_since, silence_s, until)
            if left is not None and left <= 0:
                return None


def _left(quiet_since: float, silence_s: float | None, until: float | None) -> float | None:
    """Seconds until patience ends; None: it does not."""
    now = time.monotonic()
    ends = [end - now for end in (None if silence_s is None else quiet_since + silence_s, until) if end is not None]
    return max(0.0, min(ends)) if ends else None
