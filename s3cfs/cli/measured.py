"""The long measurement of a store as a table for people; the same as data: backends/measuring/report.py."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3cfs.config import format_duration, format_size

Data = Mapping[str, Any]


def lines(measured: Data) -> Iterator[str]:
    yield (f"measured for {format_duration(measured['hours'] * 3600)}, {measured['rate']:g} requests a minute: "
           f"{measured['changes']:,} changes, {measured['requests']:,} requests")
    yield ""
    looked_on = ", ".join(f"{format_duration(seconds)} after {change}" for change, seconds in measured["looked_on_s"].items())
    yield f"seconds until a change was shown, 0: at once; looked for up to {format_duration(measured['looked_s'])}"
    yield f"came back: old answers after new ones; looked on for {looked_on}"
    yield from _table(("after", "by", "count", "late", *TIMES, "never", "came back"), (
        (change, view, *_numbers(found, "count", "late", *TIMES, "never", "came_back"))
        for change, views in measured["shown"].items() for view, found in views.items()))
    yield ""
    yield "by the hour of the day (UTC); seconds until shown, MB/s of the middle one"
    yield from _table(("hour", "changes", "requests", "late", *TIMES, "ghosts", "429/503", "5xx", "broken", "put MB/s", "get MB/s"), (
        (name, *_numbers(hour, "changes", "requests"), *_numbers(hour["delays"], "late", *TIMES), *_numbers(hour, "ghosts"),
         *_numbers(hour["troubles"], "throttled", "server", "broken"), _number(hour["put_mb_s"]["p50"]), _number(hour["get_mb_s"]["p50"]))
        for name, hour in measured["by_hour"].items()))
    yield ""
    yield from _ghosts(measured["ghosts"])
    yield from _troubles(measured)
    yield from _speed(measured)
    yield from (f"not as it must be: {text}" for text in measured["wrong"])
    yield from _suggested(measured["suggested"])


TIMES = ("p50", "p90", "p99", "max")


def _ghosts(ghosts: Data) -> Iterator[str]:
    back = {view: count for view, count in ghosts["came_back"].items() if count}
    if ghosts["did_not_take"]:
        yield f"ghosts: {ghosts['did_not_take']:,} deletes were acknowledged and did not take"
    if back:
        yield "ghosts: what was deleted came back, seen by " + ", ".join(f"{view} {count:,} times" for view, count in back.items())
    if not back and not ghosts["did_not_take"]:
        yield "no ghosts: what was deleted stayed away"


def _troubles(measured: Data) -> Iterator[str]:
    troubles, asked = measured["troubles"], measured["retry_after_s"]
    if not any(troubles.values()):
        yield "no request failed"
        return
    words = {"throttled": "429 or 503", "server": "other 5xx", "broken": "connections that died or gave no answer",
             "corrupt": "damaged answers", "other": "other refusals"}
    yield "failed: " + ", ".join(f"{troubles[name]:,} {word}" for name, word in words.items() if troubles[name])
    if asked["count"]:
        yield f"Retry-After was {_number(asked['p50'])} s in the middle, {_number(asked['max'])} s at most"
    if measured["last_error"]:
        yield f"the last one: {measured['last_error']}"


def _speed(measured: Data) -> Iterator[str]:
    speed = measured["throughput"]
    for way in ("put", "get"):
        rates, times = speed[f"{way}_mb_s"], speed[f"{way}_s"]
        if rates["count"]:
            size = format_size(measured["object_bytes"])
            yield (f"{way} of {size}, {rates['count']:,} times: {_number(rates['p50'])} MB/s in the middle, "
                   f"one of ten below {_number(rates['p10'])}, {_number(rates['min'])} at least; in {_number(times['p50'])} s, "
                   f"99 of 100 in {_number(times['p99'])} s, all in {_number(times['max'])} s")
    small = [f"{operation} {_number(1000 * found['p50'])} and {_number(1000 * found['p99'])}"
             for operation, found in measured["latency_s"].items() if found["count"]]
    if small:
        yield "small requests, in ms, the middle one and 99 of 100: " + ", ".join(small)


def _suggested(found: Data | None) -> Iterator[str]:
    if found is None:
        return
    if found["late_below"] is not None:
        yield f"no answer was late; with 95 % certainty fewer than {100 * found['late_below']:g} % are"
    if found["never"]:
        yield f"{found['never']:,} looks did not see a change at all: against that no delay helps"
    yield ""
    yield f"suggested for the consistency lock: backend-options: {found['options']}"


def _numbers(data: Data, *names: str) -> list[str]:
    return [_number(data[name]) for name in names]


def _number(value: float | None) -> str:
    """Three digits of what is no count."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """Words to the left, numbers to the right."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    words = [column for column in range(len(head)) if head[column] in ("after", "by", "hour")]
    for row in table:
        cells = (cell.ljust(width) if column in words else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(cells).rstrip()
