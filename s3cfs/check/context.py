"""What every check is given, and what one leaves for the next."""
from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from s3cfs.check.problems import Problem, Repair, Severity
from s3cfs.doors import Disk, Doors
from s3cfs.errors import S3cfsError
from s3cfs.formats.checkpoint import Manifest
from s3cfs.formats.keys import KeyRing
from s3cfs.ids import PackName
from s3cfs.meta import Meta
from s3cfs.remote import Remote

Progress = Callable[[str, int, int | None, str], None]        # what, done, of how many (None: not known), unit

GIVEN_UP = "fsck/given-up"                                    # in fsmeta: keys of damaged objects that are not needed any more
GIVEN_UP_MAX = 1000
RANGES_MAX = 20_000                                           # of files that are hit, named in one run


class Rider(NamedTuple):
    """A pack in a record's object."""

    name: PackName
    key: str                           # of the record
    base: int
    size: int                          # bytes


@dataclass(slots=True)
class Context:
    doors: Doors                       # its disk is a folder to work in, empty but for what the check itself put there
    remote: Remote
    keyring: KeyRing
    superblock: int                    # number of the superblock that counts
    meta: Meta | None                  # the rows, brought to the newest commit; None: they cannot be read
    local: Disk | None                 # the local state that `meta` belongs to; None: `meta` was made from the store alone
    full: bool                         # every byte, else rows, names and sizes
    progress: Progress
    rebuild: Callable[[], Awaitable[Meta]]                    # a further database, from the store alone; close it
    unreadable: S3cfsError | None = None                      # why `meta` is None
    # left by checks
    checkpoints: list[Manifest] = field(default_factory=list)     # those that are whole, newest first
    records: dict[str, int] = field(default_factory=dict)         # key -> size of every object of the log
    riders: list[Rider] = field(default_factory=list)             # packs in them
    counts: dict[str, int] = field(default_factory=dict)          # what was looked at
    ranges_left: int = field(default_factory=lambda: RANGES_MAX)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def given_up(self) -> frozenset[str]:
        return read_given_up(self.meta) if self.meta is not None else frozenset()

    def object_problem(self, check: str, key: str, text: str, repair: Repair | None) -> Problem:
        """Of an object that a repair may have made superfluous: then it is worth a note."""
        if key in self.given_up():
            return Problem(check, f"{text} (known; nothing needs it any more)", Severity.NOTE, key)
        return Problem(check, text, object=key, repair=repair)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold. `find` writes nothing, and no nursery of it spans a yield."""

    name: str
    find: Callable[[Context], AsyncGenerator[Problem, None]]


def read_given_up(meta: Meta) -> frozenset[str]:
    raw = meta.fsmeta_get(GIVEN_UP)
    try:
        return frozenset(map(str, json.loads(raw))) if raw is not None else frozenset()
    except (ValueError, TypeError):
        return frozenset()


def note_given_up(meta: Meta, keys: frozenset[str]) -> None:
    meta.fsmeta_set(GIVEN_UP, json.dumps(sorted(read_given_up(meta) | keys)[:GIVEN_UP_MAX]).encode())
