"""Every answer was true at some moment between the question and the answer, as far as anybody could know.

A write whose caller had an error may have happened at any time until its thread had ended, or not at all. So the value of such a write may
be read or not, but not again what was there before, once it was read. All values are different in bytes and size.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(eq=False)
class Write:
    key: str
    size: int | None                   # None: a delete
    began: float
    answered: float = math.inf         # when its caller had an answer; never: it may have happened
    closed: float = math.inf           # after that it cannot take effect any more
    refused: bool = False              # surely not carried out


@dataclass
class Judge:
    writes: dict[str, list[Write]] = field(default_factory=dict)
    reads: dict[str, list[tuple[float, float, int | None]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def begins(self, key: str, size: int | None, now: float) -> Write:
        made = Write(key, size, now)
        self.writes.setdefault(key, [Write(key, None, -1.0, -1.0, -1.0)]).append(made)
        return made

    def read(self, what: str, key: str, size: int | None, began: float, ended: float) -> None:
        """`size` tells which version it was; None: nothing was there."""
        writes = [write for write in self.writes.get(key, [Write(key, None, -1.0, -1.0, -1.0)]) if not write.refused]
        candidates = [write for write in writes if write.size == size and write.began <= ended]
        if not any(self._may_be(write, writes, began) for write in candidates):
            self.faults.append(f"{what} of {key} [{began:.2f}, {ended:.2f}] showed {size}, of {candidates}; all: {writes}; "
                               f"reads: {self.reads.get(key)}")
        self.reads.setdefault(key, []).append((began, ended, size))

    def _may_be(self, one: Write, writes: list[Write], began: float) -> bool:
        if any(one.closed < other.began and other.answered < began for other in writes):
            return False                                           # overwritten before it was asked for
        for _, read_ended, size in self.reads.get(one.key, ()):
            if read_ended < began and size != one.size:            # something else was read before that came after it
                if all(one.closed < other.began for other in writes if other.size == size):
                    return False
        return True
