"""Sizes like 10G or 512MiB and durations like 5s or 1m, read and written.

Units of sizes are powers of 1024 with and without the "i" (10G = 10GiB): what mount(8), du -h and systemd do. A size
without a unit is refused, since S3QL's --cachesize counted KiB and a silent factor of 1024 is no way to find that out.
"""
from __future__ import annotations

import math
import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:ib|b)?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Bytes; ValueError says what is wrong in a few words."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is not a size like 10G or 512MiB")
    number, unit = found[1], found[2].lower()
    if text.strip() == number and float(number) != 0:
        raise ValueError(f"'{text}' has no unit: write it like 10G, 512MiB or {number}B")
    size = float(number) * 1024 ** _POWER[unit] if "." in number else int(number) * 1024 ** _POWER[unit]
    if size >= 2**63:
        raise ValueError(f"'{text}' is too large")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds; a bare number is seconds. ValueError says what is wrong."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is not a duration like 5s, 500ms or 1m")
    return float(found[1]) * _SECONDS[(found[2] or "s").lower()]


def format_size(size: float) -> str:
    """At most four significant digits: "0 B", "999 B", "1.50 KiB", "10.0 GiB"."""
    if abs(size) < 1024:
        return f"{size:.0f} B"
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    size, unit = size / 1024, next(units)
    while abs(size) >= 1023.5 and (larger := next(units, "")):
        size, unit = size / 1024, larger
    digits = 2 if abs(size) < 9.995 else 1 if abs(size) < 99.95 else 0
    return f"{size:.{digits}f} {unit}"


def format_duration(seconds: float) -> str:
    """ "0.3 s", "12 s", "4 min 10 s", "3 h 05 min", "2 d 3 h" """
    if not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
