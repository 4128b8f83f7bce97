"""What a check finds, in words and as data, and what came of mending it."""
from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from s3cfs.check.workshop import Workshop


class Severity(enum.StrEnum):
    ERROR = "error"                 # something is not as it must be
    NOTE = "note"                   # worth knowing; changes no exit code
    CORRECTED = "corrected"         # what a repair did


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a repair came to. `lost`: the chunk rows it could not save, when it mended a part."""

    mended: bool
    text: str
    lost: frozenset[int] | None = None


class Repair(Protocol):
    """Plain, hashable data: problems that one repair mends carry equal ones, and it runs once."""

    @property
    def order(self) -> int:
        """Lower ones run first."""

    async def mend(self, shop: Workshop) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a file, `end` excluded."""

    path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Problem:
    check: str
    text: str
    severity: Severity = Severity.ERROR
    object: str = ""                # key in the store, or path in the local state
    file: Range | None = None       # of the file that is hit
    chunk: int = 0                  # row of the chunk it is about
    repair: Repair | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Line:
    """A problem as it is reported; the fields are those of `fsck --json` (docs/fsck.md)."""

    check: str
    severity: str
    text: str
    object: str | None
    file: Range | None
    repairable: bool

    @classmethod
    def of(cls, problem: Problem) -> Line:
        return cls(problem.check, problem.severity.value, problem.text, problem.object or None, problem.file, problem.repair is not None)

    def __str__(self) -> str:
        return self.text if self.severity == Severity.ERROR else f"{self.severity}: {self.text}"
