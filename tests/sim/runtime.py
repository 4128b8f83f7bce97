"""Runs lives in trio, deterministically: the scheduler's order comes from the seed, time passes only when nothing can run.

Two private names of trio are used, as Hypothesis' plugin for trio does: `_ALLOW_DETERMINISTIC_SCHEDULING` (batches of
runnable tasks are sorted by their age before they are shuffled) and `_r` (which shuffles them). `check_trio` says so when they are gone.
A run shares nothing with another but the media, the bucket and the time given in.
"""
from __future__ import annotations

import contextvars
import gc
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from .crash import Crash, Incarnation

T = TypeVar("T")
LIFE_MAX_S = 100_000.0        # virtual; a life that is longer hangs
STEPS_MAX = 300_000           # of tasks; a life that takes more runs in circles

_whose: contextvars.ContextVar[Incarnation] = contextvars.ContextVar("whose")
_clock: list[MockClock] = []


class Stuck(Exception):
    """Every task waits for something that will never happen (or too long)."""


def now() -> float:
    """Virtual time, from any thread."""
    return _clock[-1].current_time() if _clock else trio.current_time()


def jump(seconds: float) -> None:
    """Everybody sleeps so long without a wink, as machines do that are suspended."""
    (_clock[-1] if _clock else _mock()).jump(seconds)


def _mock() -> MockClock:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    return clock


class _Steps(trio.abc.Instrument):
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        incarnation = task.context.get(_whose)
        if incarnation is not None:
            incarnation.step()
            if incarnation.counts["await"] >= STEPS_MAX and not incarnation.dead:
                incarnation.endless = True
                incarnation.kill(f"running in circles, last in {task.name}")


class Outcome(Generic[T]):
    """How a life ended: with a value, by a crash (`crashed`, `where`), or with an error that is a finding."""

    def __init__(self) -> None:
        self.value: T | None = None
        self.crashed = False
        self.where = ""
        self.error: BaseException | None = None
        self.ended_s = 0.0                # virtual time


class Actor(Generic[T]):
    """One life of those that run at the same time."""

    def __init__(self, incarnation: Incarnation, main: Callable[[], Awaitable[T]]) -> None:
        self.incarnation, self._main = incarnation, main
        self.outcome: Outcome[T] = Outcome()
        self.task: trio.lowlevel.Task | None = None
        self.done = self.stuck = False

    async def run(self) -> None:
        incarnation, outcome = self.incarnation, self.outcome
        self.task = trio.lowlevel.current_task()
        _whose.set(incarnation)
        try:
            with trio.CancelScope() as scope, trio.move_on_after(LIFE_MAX_S) as limit:
                incarnation.scope = scope
                if incarnation.dead:
                    scope.cancel()
                incarnation.alive()
                outcome.value = await self._main()
            if limit.cancelled_caught:
                outcome.error = Stuck(f"not finished after {LIFE_MAX_S:.0f} virtual seconds")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            if not incarnation.dead or not _is_death(error):
                outcome.error = error
        finally:
            incarnation.scope = None
            outcome.ended_s = trio.current_time()
            self.done = True
        self._conclude()

    def _conclude(self) -> None:
        incarnation, outcome = self.incarnation, self.outcome
        if self.stuck or incarnation.endless:
            outcome.error = Stuck("every task waits for something that will never happen" if self.stuck else incarnation.died_at)
            return
        outcome.crashed, outcome.where = incarnation.dead, incarnation.died_at
        if outcome.crashed and not isinstance(outcome.error, AssertionError):
            outcome.error = None                              # what else a dying process raises, nobody sees

    def unshield(self) -> bool:
        """The dead do not finish what they were shielded for."""
        return self.incarnation.dead and not self.done and self.task is not None and _unshield(self.task)


def check_trio() -> None:
    for name in ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r"):
        if not hasattr(trio_run, name):
            raise RuntimeError(f"this trio has no {name}: find its new way of deterministic scheduling")


def live(incarnation: Incarnation, main: Callable[[], Awaitable[T]], *, seed: int, start_s: float = 1.0) -> Outcome[T]:
    """Run `main` until it returns, raises, or the incarnation dies. Real time is never waited for."""
    actor = Actor(incarnation, main)
    live_together([actor], seed=seed, start_s=start_s)
    return actor.outcome


def live_together(actors: Sequence[Actor[Any]], *, seed: int, start_s: float = 1.0) -> None:
    """Several lives at the same time; each ends for itself."""
    check_trio()
    clock = MockClock()
    clock.jump(start_s)
    clock.autojump_threshold = 0
    forward = clock._autojump

    def jump_or_end() -> None:
        if sum(actor.unshield() for actor in actors):
            return
        if trio.lowlevel.current_statistics().seconds_to_next_deadline < math.inf:
            forward()
            return
        for actor in actors:
            if not actor.done and not actor.incarnation.dead:
                actor.stuck = True
                actor.incarnation.kill("stuck")
        if not sum(actor.unshield() for actor in actors):
            forward()

    async def body() -> None:
        async with trio.open_nursery() as nursery:
            for actor in actors:
                nursery.start_soon(actor.run)

    clock._autojump = jump_or_end  # type: ignore[method-assign]
    kept = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r
    collecting = gc.isenabled()
    gc.disable()                                              # a collection would run finalizers at a moment that no seed knows
    private: Any = trio_run
    _clock.append(clock)
    try:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = True, random.Random(seed)
        trio.run(body, clock=clock, instruments=[_Steps()])
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = kept
        _clock.pop()
        if collecting:
            gc.enable()


def _unshield(task: trio.lowlevel.Task) -> bool:
    """Take the shields off this task and all below it; whether there were any."""
    found = False
    status: Any = task._cancel_status
    while status is not None:
        if status._scope.shield:
            status._scope.shield = False
            found = True
        status = status._parent
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda each: each._counter):
            found = _unshield(child) or found
    return found


def _is_death(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_death(inner) for inner in error.exceptions)
    return not isinstance(error, AssertionError) or isinstance(error, Crash)
