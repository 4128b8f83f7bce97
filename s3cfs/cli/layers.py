"""What layers tell, for people. Which layers there are, and what their words mean, is their own matter."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from s3cfs.cli.run import one_line

WIDTH = 22


def table(name: str, told: Mapping[str, Any]) -> Iterator[str]:
    """Figures and settings of one layer."""
    yield one_line(name)
    for part in ("status", "settings"):
        for word, value in (told.get(part) or {}).items():
            label = word.replace("_", " ") if part == "status" else word
            yield f"  {one_line(label).ljust(WIDTH)} {one_line(figure(value))}"


def figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{word.replace('_', ' ')} {figure(inner)}" for word, inner in value.items() if inner) or "nothing"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def decisions(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line each, in local time."""
    yield "decisions" if entries else "no decisions yet"
    for entry in entries:
        when = datetime.fromtimestamp(float(entry.get("time") or 0.0)).strftime("%Y-%m-%d %H:%M:%S")
        about = str(entry.get("key") or entry.get("setting") or entry.get("what"))
        change = f" {_seconds(entry, entry['from'])} -> {_seconds(entry, entry['to'])}" if "from" in entry and "to" in entry else ""
        kind = f" ({entry['kind']})" if entry.get("kind") and not entry.get("key") else ""
        yield f"  {when}  {one_line(about + change + ': ' + str(entry.get('why') or '') + kind)}"


def _seconds(entry: Mapping[str, Any], value: Any) -> str:
    return f"{value:g} s" if entry.get("what") == "delay" and isinstance(value, int | float) else str(value)
