"""How long the event loop did not come round, and what the database did on it.

`LoopMeter` measures time and is for `soak` and for finding things: on a busy machine any figure of it may be too high. `SqlMeter` counts
steps of SQLite's machine on one connection, which are the same at every run: that is what a quick test asserts.

    async with measure() as meter:
        ...
    assert meter.longest_s < 0.05, meter.report()

    with SqlMeter(meta) as sql:
        ...
    assert sql.most_steps < 10_000, sql.worst
"""
from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import apsw
import trio

from s3cfs.meta import Meta

BEAT_S = 0.002
KEPT = 12


@dataclass(order=True, frozen=True)
class Step:
    """One task ran for so long without giving way. `cpu_s`: of the loop's thread; the rest it waited (disk, interpreter's lock)."""

    wall_s: float
    cpu_s: float
    task: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.wall_s * 1e3:.1f} ms ({self.cpu_s * 1e3:.1f} of processor) in {self.task}"


class LoopMeter(trio.abc.Instrument):
    """Use it by `measure()`."""

    def __init__(self) -> None:
        self.longest_s = 0.0          # from one look at what is ready to the next, or that a timer came too late
        self.most_cpu = Step(0.0, 0.0, "")     # the step that took most of the processor: does not depend on what else this machine does
        self.late_s = 0.0             # of the timer alone: also counts what other threads keep the interpreter's lock for
        self.worst: list[Step] = []   # the longest steps of tasks, shortest first
        self._pass = self._step = time.perf_counter()
        self._cpu = time.thread_time()

    def reset(self) -> None:
        self.longest_s, self.late_s, self.worst, self.most_cpu = 0.0, 0.0, [], Step(0.0, 0.0, "")

    def report(self) -> str:
        return "; ".join([f"longest {self.longest_s * 1e3:.1f} ms, timer late by {self.late_s * 1e3:.1f} ms",
                          f"most processor: {self.most_cpu}",
                          *map(str, [step for step in self.worst[::-1] if step.wall_s > 0.001])])

    # ------------------------------------------------------------ of trio

    def after_io_wait(self, timeout: float) -> None:
        self._pass = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        self.longest_s = max(self.longest_s, time.perf_counter() - self._pass)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step, self._cpu = time.perf_counter(), time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        step = Step(time.perf_counter() - self._step, time.thread_time() - self._cpu, task.name)
        if step.cpu_s > self.most_cpu.cpu_s:
            self.most_cpu = step
        if len(self.worst) == KEPT and step <= self.worst[0]:
            return
        (heapq.heappushpop if len(self.worst) == KEPT else heapq.heappush)(self.worst, step)
        self.worst.sort()

    async def beat(self) -> None:
        """A timer that should come every BEAT_S."""
        while True:
            due = time.perf_counter() + BEAT_S
            await trio.sleep(BEAT_S)
            self.late_s = max(self.late_s, time.perf_counter() - due)
            self.longest_s = max(self.longest_s, self.late_s)


@contextlib.asynccontextmanager
async def measure() -> AsyncIterator[LoopMeter]:
    """In a running loop, until the block is left."""
    meter = LoopMeter()
    async with trio.open_nursery() as nursery:
        trio.lowlevel.add_instrument(meter)
        nursery.start_soon(meter.beat)
        try:
            yield meter
        finally:
            trio.lowlevel.remove_instrument(meter)
            nursery.cancel_scope.cancel()


class SqlMeter:
    """Statements that ended on the connection that the loop uses, and their steps in SQLite's machine (a row of a scan is 3-10 of them)."""

    def __init__(self, meta: Meta) -> None:
        self._connection = meta._engine.connection
        self.clear()

    def clear(self) -> None:
        self.statements = self.steps = self.most_steps = self.scanned = 0
        self.worst = ""               # the statement of most_steps

    def _ended(self, event: dict[str, Any]) -> None:
        status = event["stmt_status"]
        steps = int(status["SQLITE_STMTSTATUS_VM_STEP"])
        self.statements += 1
        self.steps += steps
        self.scanned += int(status["SQLITE_STMTSTATUS_FULLSCAN_STEP"])      # rows met without an index
        if steps > self.most_steps:
            self.most_steps, self.worst = steps, str(event["sql"])

    def __enter__(self) -> SqlMeter:
        self._connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._ended, id=self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.trace_v2(0, None, id=self)
