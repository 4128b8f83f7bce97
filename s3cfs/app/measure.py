"""probe --hours: the long measurement of a store, its report file, and how it is ended early."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import trio

from s3cfs.backends.base import Backend
from s3cfs.backends.measuring import Measurement, Plan, Tally, report
from s3cfs.backends.measuring.plan import READERS
from s3cfs.config import Settings
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import ConfigError, S3cfsError, SystemFailure

from .store import open_store

OnProgress = Callable[[Mapping[str, Any]], None]

SCHEMA = 1
WRITE_EVERY_S = 30.0
ENDS_EARLY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class MeasureResult:
    measured: Mapping[str, Any]        # see backends/measuring/report.py
    complete: bool                     # False: it was ended early, by a signal
    unwritten: S3cfsError | None       # why the report file does not hold it


def measure(settings: Settings, *, about: Mapping[str, Any], report_file: str | None = None,
            progress: OnProgress = lambda event: None, **how: Any) -> MeasureResult:
    """Measure as the plan (`how` are its fields) has it. SIGINT, SIGTERM and SIGHUP, unless the caller had them ignored, end it early:
    then the result is what was measured so far.

    `about` (plain data) stands in the report file, too. A report of the same store that is there is gone on with; ConfigError when
    something else is there.
    """
    plan = Plan(**how)
    with _backends(settings, 1 + READERS) as (writer, *readers), tempfile.TemporaryDirectory(prefix="s3cfs-") as scratch:
        file = ReportFile(report_file, writer.location, about)
        tally = file.tally

        def on_tick() -> None:
            file.write(tally, plan, complete=False)
            progress({"done": tally.measured_s, "total": plan.seconds, "unit": "seconds", "text": _headline(tally)})

        async def main() -> bool:
            doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(scratch))
            measurement, stop = Measurement(doors, writer, readers, plan, tally, on_tick), trio.Event()
            by_hand = False

            async def signals(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                nonlocal by_hand
                heard = [number for number in ENDS_EARLY if signal.getsignal(number) is not signal.SIG_IGN]      # nohup
                with trio.open_signal_receiver(*heard) as received:
                    task_status.started()
                    async for _ in received:
                        by_hand = by_hand or not stop.is_set()
                        stop.set()

            async with trio.open_nursery() as nursery:
                await nursery.start(signals)
                on_tick()
                await measurement.run(stop)
                nursery.cancel_scope.cancel()
            return not by_hand

        file.write(tally, plan, complete=False, now=True)
        complete = trio.run(main)
        unwritten: S3cfsError | None = None
        try:
            file.write(tally, plan, complete=complete, now=True)
        except S3cfsError as error:
            unwritten = error
        return MeasureResult(report(tally, plan), complete, unwritten)


def _headline(tally: Tally) -> str:
    whole = tally.all_hours
    troubles = sum(whole.counts[name] for name in ("throttled", "server", "broken", "corrupt", "other"))
    return (f"measuring ({whole.counts['changes']:,} changes, {whole.delays.above_zero:,} late answers, {whole.counts['ghosts']:,} ghosts, "
            f"{troubles:,} failed requests)")


@contextlib.contextmanager
def _backends(settings: Settings, count: int) -> Iterator[list[Backend]]:
    """So many of the same store, bare; each has connections of its own, and its own folder if it keeps state."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            backend = open_store(settings)
            stack.callback(backend.close)
            if backend.keeps_state:
                backend.start(stack.enter_context(tempfile.TemporaryDirectory(prefix="s3cfs-", ignore_cleanup_errors=True)))
            made.append(backend)
        yield made


class ReportFile:
    """JSON, replaced as a whole. It also has what it takes to go on. Without a path nothing is kept."""

    def __init__(self, path: str | None, location: str, about: Mapping[str, Any]) -> None:
        self._path, self._location, self._about = path, location, about
        self._began, self.tally = _now(), Tally()
        self._written = float("-inf")
        if path is not None and os.path.exists(path):
            self._go_on(path)

    def _go_on(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
            same = kept["schema"] == SCHEMA and kept["store"] == self._location
            if same:
                self._began, self.tally = str(kept["began"]), Tally.from_raw(kept["raw"])
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            same = False
        if not same:
            raise ConfigError(f"{path} is there and is no report about {self._location}: give another name, or remove it")

    def write(self, tally: Tally, plan: Plan, *, complete: bool, now: bool = False) -> None:
        """Not more often than is good, unless `now`; then SystemFailure when it cannot be."""
        moment = SystemClock.monotonic()
        if self._path is None or (not now and moment - self._written < WRITE_EVERY_S):
            return
        self._written = moment
        text = json.dumps({**self._about, "schema": SCHEMA, "store": self._location, "began": self._began, "ended": _now(),
                           "complete": complete, "measured": report(tally, plan), "raw": tally.raw()}, indent=1)
        fresh = f"{self._path}.new"
        try:
            with open(fresh, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            if now:
                raise SystemFailure(f"cannot write the report {self._path}: {error.strerror}") from None


def _now() -> str:
    return datetime.fromtimestamp(SystemClock.time_ns() / 1e9, UTC).isoformat(timespec="seconds")
