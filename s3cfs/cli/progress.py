"""Progress of long work: a line that redraws itself on a terminal, else a plain line every 30 s; always on stderr."""
from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from s3cfs.cli.seam import Event
from s3cfs.config import format_duration, format_size

REDRAW_S = 0.2
PLAIN_S = 30.0
RATE_WINDOW_S = 10.0


class Progress:
    """Call it with an event (see `seam.Event`) as often as you like; it prints as rarely as is right."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False, stream: TextIO | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet, self._json, self._clock = quiet, as_json, clock
        self._terminal = not as_json and self._stream.isatty()
        self._printed = self._start = clock()
        self._marks: list[tuple[float, float]] = []
        self._width = 0
        self._text = ""

    def __call__(self, event: Event) -> None:
        now, done = self._clock(), float(event.get("done") or 0)
        if event.get("text", self._text) != self._text:
            self._text, self._marks = str(event.get("text")), []
        if self._marks and done < self._marks[-1][1]:
            self._marks = []
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_WINDOW_S:
            del self._marks[0]
        if len(self._marks) > 200:
            del self._marks[1::2]
        if self._quiet or now - self._printed < (REDRAW_S if self._terminal else PLAIN_S):
            return
        self._printed = now
        self._write(json.dumps({"progress": dict(event)}) if self._json else self.line(event))

    def rate(self) -> float | None:
        """Per second, over the last ten; None before there is one."""
        (t0, d0), (t1, d1) = self._marks[0], self._marks[-1]
        return (d1 - d0) / (t1 - t0) if t1 > t0 else None

    def line(self, event: Event) -> str:
        done, total, unit = float(event.get("done") or 0), event.get("total"), str(event.get("unit") or "bytes")
        parts = [f"{self._text}:" if self._text else "", _amount(done, unit) + (f" of {_amount(float(total), unit)}" if total else "")]
        if total:
            parts.append(f"{min(100, int(100 * done / total))} %")
        rate = self.rate()
        if unit == "seconds":                      # the work is the time
            if total:
                parts.append(f"{format_duration(total - done)} left")
        elif rate:
            parts.append(f"{_amount(rate, unit)}/s")
            if total and total > done:
                parts.append(f"{format_duration((total - done) / rate)} left")
        return " ".join(part for part in parts[:2] if part) + "".join(f", {part}" for part in parts[2:])

    def close(self) -> None:
        """Take the redrawn line off the terminal."""
        if self._width:
            self._emit("\r" + " " * self._width + "\r")
            self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _write(self, line: str) -> None:
        if self._terminal:
            self._emit("\r" + line.ljust(self._width))
            self._width = max(self._width, len(line))
        else:
            self._emit(line + "\n")

    def _emit(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._quiet = True


def _amount(value: Any, unit: str) -> str:
    if unit == "seconds":
        return format_duration(value)
    return format_size(value) if unit == "bytes" else f"{value:,.0f} {unit}"
