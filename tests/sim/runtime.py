"""Runs a life in trio, deterministically: the scheduler's order comes from the seed, time passes only when nothing can run.

Two private names of trio are used, as Hypothesis' plugin for trio does: `_ALLOW_DETERMINISTIC_SCHEDULING` (batches of
runnable tasks are sorted by their age before they are shuffled) and `_r` (which shuffles them). `check_trio` says so when they are gone.
A run shares nothing with another but the medium, the bucket and the time given in.
"""
from __future__ import annotations

import gc
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from .crash import Crash, Incarnation

T = TypeVar("T")
LIFE_MAX_S = 20_000.0         # virtual; a life that is longer hangs
STEPS_MAX = 150_000           # of tasks; a life that takes more runs in circles


class Stuck(Exception):
    """Every task waits for something that will never happen (or too long)."""


class _Steps(trio.abc.Instrument):
    def __init__(self, incarnation: Incarnation) -> None:
        self._incarnation = incarnation

        self.endless = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._incarnation.step()
        if self._incarnation.counts["await"] >= STEPS_MAX:
            self.endless = True
            self._incarnation.kill(f"running in circles, last in {task.name}")


class Outcome(Generic[T]):
    """How a life ended: with a value, by a crash (`crashed`, `where`), or with an error that is a finding."""

    def __init__(self) -> None:
        self.value: T | None = None
        self.crashed = False
        self.where = ""
        self.error: BaseException | None = None
        self.ended_s = 0.0                # virtual time


def check_trio() -> None:
    for name in ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r"):
        if not hasattr(trio_run, name):
            raise RuntimeError(f"this trio has no {name}: find its new way of deterministic scheduling")


def live(incarnation: Incarnation, main: Callable[[], Awaitable[T]], *, seed: int, start_s: float = 1.0) -> Outcome[T]:
    """Run `main` until it returns, raises, or the incarnation dies. Real time is never waited for."""
    check_trio()
    clock = MockClock()
    clock.jump(start_s)
    clock.autojump_threshold = 0
    jump = clock._autojump
    outcome: Outcome[T] = Outcome()

    stuck = False
    main_task: list[trio.lowlevel.Task] = []

    def jump_or_end() -> None:
        nonlocal stuck
        if not incarnation.dead and trio.lowlevel.current_statistics().seconds_to_next_deadline < math.inf:
            jump()
            return
        if not incarnation.dead:
            stuck = True
            incarnation.kill("stuck")
        if not _unshield(main_task[0]):                       # the dead do not finish what they were shielded for
            jump()

    async def body() -> None:
        main_task.append(trio.lowlevel.current_task())
        try:
            with trio.CancelScope() as scope, trio.move_on_after(LIFE_MAX_S) as limit:
                incarnation.scope = scope
                incarnation.alive()
                outcome.value = await main()
            if limit.cancelled_caught:
                outcome.error = Stuck(f"not finished after {LIFE_MAX_S:.0f} virtual seconds")
        finally:
            outcome.ended_s = trio.current_time()

    clock._autojump = jump_or_end  # type: ignore[method-assign]
    steps = _Steps(incarnation)
    kept = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r
    collecting = gc.isenabled()
    gc.disable()                                              # a collection would run finalizers at a moment that no seed knows
    private: Any = trio_run
    try:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = True, random.Random(seed)
        trio.run(body, clock=clock, instruments=[steps])
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        if not incarnation.dead or not _is_death(error):
            outcome.error = error
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = kept
        incarnation.scope = None
        if collecting:
            gc.enable()
    if stuck or steps.endless:
        outcome.error = Stuck("every task waits for something that will never happen" if stuck else incarnation.died_at)
        return outcome
    outcome.crashed, outcome.where = incarnation.dead, incarnation.died_at
    if outcome.crashed and not isinstance(outcome.error, AssertionError):
        outcome.error = None                                  # what else a dying process raises, nobody sees
    return outcome


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
