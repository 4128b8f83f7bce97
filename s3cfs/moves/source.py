"""A tree that is to be planted into a filesystem (plant.py), whatever it comes from: what a Source has to answer.

    names        `children`, folder by folder from `root`
    attributes   come with the names: `Thing`
    data         `extents` says where a file has bytes, `read` brings them, verified
    the rest     `xattrs`

A source is one moment of a tree: the same question has the same answer for as long as it is open. It is asked by several tasks at once.
What it cannot bring any more is `Lost`: the range becomes a hole, is told with its file, and the rest goes on. Whatever else it raises ends
the planting, which goes on where it was when it is begun again.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from s3cfs.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Thing:
    """An inode of the source. `mode` with its type, times in nanoseconds, `rdev` as Linux encodes it."""

    ino: int                       # the source's number: names with the same one are hard links
    mode: int
    uid: int
    gid: int
    size: int                      # of a file
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int = 0
    names: int = 1                 # in the whole tree
    target: bytes = b""            # of a symbolic link
    xattrs: bool = True            # False: it has none
    dropped: tuple[str, ...] = ()  # what it has that is not kept, in words


class Child(NamedTuple):
    name: bytes
    thing: Thing
    after: int                     # the position behind it


class Extent(NamedTuple):
    """Bytes [offset, offset + length) of a file are not (only) a hole."""

    offset: int
    length: int
    sha256: bytes | None = None    # given for what occurs several times: such bytes are fetched once where possible


class Totals(NamedTuple):
    """What the bar is measured by."""

    things: int                    # inodes
    bytes: int                     # lengths of all extents of all files


class Kind(StrEnum):
    """Of a finding."""

    MISSING = "missing"            # bytes of a file: the object is not there
    DAMAGED = "damaged"            # bytes of a file: it is there and not what it must be
    REFUSED = "refused"            # a name, a file, an attribute that a filesystem of ours cannot hold, or whose place is taken
    DROPPED = "dropped"            # a feature that is not kept
    NOTE = "note"


def exit_code_of(findings: Mapping[Kind, int]) -> ExitCode:
    """Of a command that met so many of each kind: what is lost counts most."""
    codes = ((Kind.MISSING, ExitCode.OBJECT_MISSING), (Kind.DAMAGED, ExitCode.DAMAGED), (Kind.REFUSED, ExitCode.UNSUPPORTED))
    return next((code for kind, code in codes if findings.get(kind)), ExitCode.OK)


@dataclass(frozen=True, slots=True)
class Finding:
    """What did not come as it was. `ranges`: [start, end) of the file, in order."""

    kind: Kind
    path: bytes                    # from the root of the source, without a leading '/'; b"" is the root, or nothing in particular
    text: str
    ranges: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        where = self.path.decode("utf-8", "backslashreplace")
        spans = ", ".join(f"{start}-{end - 1}" for start, end in self.ranges)
        return f"{self.kind}: {where}{': ' if where else ''}{self.text}{f' (bytes {spans})' if spans else ''}"


class Lost(Exception):
    """Bytes of the source cannot be had: `missing`, or there and damaged."""

    def __init__(self, text: str, *, missing: bool) -> None:
        super().__init__(text)
        self.kind = Kind.MISSING if missing else Kind.DAMAGED


class Source(Protocol):
    @property
    def identity(self) -> str:
        """Which tree this is, in one line, the same at every opening; no secret."""

    async def totals(self) -> Totals: ...

    async def root(self) -> Thing: ...

    async def children(self, folder: int, after: int) -> Sequence[Child]:
        """The next entries of a folder behind a position (0: from the start), [] at the end and only there. No '.' and '..'."""

    async def xattrs(self, ino: int) -> Sequence[tuple[bytes, bytes]]: ...

    async def extents(self, ino: int, offset: int) -> Sequence[Extent]:
        """The next extents that begin at or behind `offset`, ascending and apart; [] at the end and only there."""

    async def read(self, ino: int, extent: Extent) -> bytes:
        """Its bytes, verified, `extent.length` of them. Lost."""
