"""What goes to and comes from a store beside keys."""
from __future__ import annotations

from dataclasses import dataclass, field

from s3cfs.limits import KIB

Body = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int                      # bytes
    modified: float | None = field(default=None, compare=False)      # Unix time by the store's clock, where `stat` of that store says it


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this store is like. Pack size, slots and windows follow from it (`s3cfs.limits.fitted`). None: not known, `probe` finds out."""

    create_only: bool | None = None            # S4
    linearizable: bool | None = None           # S2 and S3 hold for every reader, at once; False: what is answered may be old
    may_delete: bool = True
    batch_delete: int = 1                      # keys that go in one request
    ranged_reads: bool = True                  # False: for a part of an object all of it is transferred
    delimiters: bool = True                    # False: folders are found by listing everything below
    parallel_reads: int = 8                    # calls at once that it bears, and profits from
    parallel_writes: int = 8
    ideal_object_bytes: int = 6656 * KIB       # nine with what takes them past it, sent at once or loaded ahead, are 64 MiB
    largest_object_bytes: int | None = None    # None: larger than s3cfs ever makes one
    request_bytes: int = 256 * KIB             # a request costs (time, money) about as much as so many bytes on their way
    examines: bool = False                     # keeps more of an object than it needs to give it back; `examine` looks at all of it


@dataclass(frozen=True, slots=True)
class Degraded:
    """What `put` may answer: the object is stored and can be read, but not as safely as it should be (fewer copies, fewer shards)."""

    reason: str                                # one line, for people
