"""All bounds of the consistency lock and the checker in one place, as backend options and as settings of a live mount."""
from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from s3cfs.errors import ConfigError
from s3cfs.limits import GIB

DAY_S = 86_400.0

# What is no matter of taste, and so no option.
KEYS_KNOWN = 20_000                # of so many the lock knows what they must hold, the last ones; 400 bytes each
DELAYS_KEPT = 50_000               # so many keys are in a delay at most, 800 bytes each; beyond that the ends nearest are cut short
AGAIN_MOST = 10.0                  # seconds; after an old answer the key is left alone for its delay, and no longer than this
LISTINGS_ASKED = 3                 # a listing that is old as often is put right by what is known
SMALL_BODY = 64 << 10              # up to so many bytes are hashed where they are; more in a thread
YOUNG_BODIES = 4 << 20              # bytes of such small bodies that are in their delay; they are given to who reads them meanwhile
SAVE_EVERY = 0.5                   # seconds; how an operation ended is written down as often
SEGMENT_KEYS = 5000                # keys in one file of what is written down
SEGMENTS = 8                       # files
WARNINGS = 10                      # lines of the log a minute; of one key one
WARNED_AGAIN = 60.0                # seconds


class Mode(enum.StrEnum):
    """What happens to access that is not serialised."""

    BLOCK = "block"                # it waits, and is warned of
    WARN = "warn"                  # it is warned of
    OFF = "off"                    # nobody looks


@dataclass(frozen=True, slots=True)
class Bounds:
    """`option`s of `OPTIONS` have these names with '-' for '_'. Seconds unless the name says otherwise."""

    lock_mode: Mode = Mode.BLOCK
    lock_delay: float = 20.0               # the protective delay after a write or delete, at the beginning
    lock_delay_least: float = 0.0          # between these it follows what the checker sees
    lock_delay_most: float = 90.0
    lock_jitter: float = 0.5               # up to this part of the delay is added to it, at random
    lock_memory: float = 600.0             # for so long it is known what a key must hold: who reads something else is told to ask again
    lock_warn_after: float = 60.0          # an operation that waited for so long is warned of

    grow_factor: float = 2.0               # evidence of staleness multiplies the delay by this, at least to what was seen
    grow_pause: float = 60.0               # not again within this, but for evidence that is worse
    shrink_factor: float = 0.5             # quiet multiplies it by this
    shrink_after: float = 3600.0           # of quiet, each time
    busy_per_minute: int = 5               # so many 429 and 503 in a minute are evidence, too

    check_delays: tuple[float, ...] = (2.0, 15.0, 120.0, 1800.0)     # after a write or delete, when it is looked at
    check_sample: float = 0.1              # of objects, whose content is read and compared, too
    checks_per_minute: int = 60            # requests
    check_bytes_per_day: int = 1 * GIB     # of content that is read

    def __post_init__(self) -> None:
        for name in ("lock_delay", "lock_delay_least", "lock_delay_most", "lock_jitter", "lock_memory", "lock_warn_after", "grow_pause"):
            if not 0.0 <= getattr(self, name) <= DAY_S:
                raise ConfigError(f"{name.replace('_', '-')} is between 0 and {DAY_S:.0f}")
        if not self.lock_delay_least <= self.lock_delay <= self.lock_delay_most:
            raise ConfigError("lock-delay-least <= lock-delay <= lock-delay-most does not hold")
        if not self.grow_factor > 1.0 or not 0.0 < self.shrink_factor < 1.0 or not self.shrink_after > 0.0:
            raise ConfigError("grow-factor is above 1, shrink-factor between 0 and 1, shrink-after above 0")
        if not 0.0 <= self.check_sample <= 1.0:
            raise ConfigError("check-sample is between 0 and 1")
        if min(self.busy_per_minute, self.checks_per_minute, self.check_bytes_per_day) < 0:
            raise ConfigError("a number of requests or bytes is not below 0")
        if list(self.check_delays) != sorted(self.check_delays) or not all(0.0 < delay <= DAY_S for delay in self.check_delays):
            raise ConfigError("check-delays are seconds that grow, divided by '/'")

    def changed(self, option: str, value: str) -> Bounds:
        """With one of them another, as text; ConfigError."""
        name = option.replace("-", "_")
        if option not in OPTIONS:
            raise ConfigError(f"there is no bound {option!r}; there are {', '.join(OPTIONS)}")
        try:
            return replace(self, **{name: _PARSERS[name](value)})
        except ValueError:
            raise ConfigError(f"{option}={value}: expected {_EXPECTED[name]}") from None

    def told(self) -> dict[str, str]:
        """All of them as text, by option."""
        return {option: _written(getattr(self, option.replace("-", "_"))) for option in OPTIONS}


OPTIONS: Mapping[str, str] = {
    "lock-mode": "block, warn or off: what happens to access to one key that is not serialised",
    "lock-delay": "protective delay in seconds at the beginning, after a write or delete of a key",
    "lock-delay-least": "the delay never shrinks below this",
    "lock-delay-most": "nor grows beyond this",
    "lock-jitter": "up to this part of the delay is added to it at random",
    "lock-memory": "seconds for which it is known what a key must hold",
    "lock-warn-after": "an operation that was held back for so many seconds is warned of",
    "grow-factor": "what evidence of staleness multiplies the delay by",
    "grow-pause": "seconds within which the delay does not grow again but on worse evidence",
    "shrink-factor": "what quiet multiplies it by",
    "shrink-after": "seconds of quiet, each time",
    "busy-per-minute": "so many 429 and 503 in a minute are evidence, too",
    "check-delays": "when an object is looked at after its write or delete: seconds, divided by '/'",
    "check-sample": "part of the objects whose content is read and compared, too",
    "checks-per-minute": "requests of the checker",
    "check-bytes-per-day": "content that the checker reads",
}


def from_options(options: Mapping[str, str]) -> Bounds:
    """Those of `OPTIONS` among them; ConfigError. The order in which they are given does not matter."""
    given = {name.replace("-", "_"): value for name, value in options.items() if name in OPTIONS}
    values: dict[str, Any] = {}
    for name, value in given.items():
        try:
            values[name] = _PARSERS[name](value)
        except ValueError:
            raise ConfigError(f"backend option {name.replace('_', '-')}={value}: expected {_EXPECTED[name]}") from None
    if "lock_delay" not in values:
        least, most = (values.get(name, getattr(DEFAULTS, name)) for name in ("lock_delay_least", "lock_delay_most"))
        values["lock_delay"] = min(max(DEFAULTS.lock_delay, least), most)
    return Bounds(**values)


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{one:g}" for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _delays(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/") if part)


def _parser(default: object) -> tuple[Callable[[str], Any], str]:
    if isinstance(default, Mode):
        return Mode, "block, warn or off"
    if isinstance(default, tuple):
        return _delays, "seconds divided by '/'"
    return (int, "a whole number") if isinstance(default, int) else (float, "a number")


DEFAULTS = Bounds()
_BOTH = {field.name: _parser(getattr(DEFAULTS, field.name)) for field in fields(Bounds)}
_PARSERS = {name: parser for name, (parser, _) in _BOTH.items()}
_EXPECTED = {name: expected for name, (_, expected) in _BOTH.items()}
