"""The nouns of the metadata: plain values that travel upwards, none of which knows SQL."""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from s3cfs.errors import S3cfsError
from s3cfs.ids import ChunkId, PackName, pack_key


@dataclass(slots=True)
class Inode:
    """One row of `inode`. Times in nanoseconds; `alloc` is the sum of the extents' lengths plus len(data)."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    alloc: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    parent: int                 # directories: their parent, else 0
    target: bytes | None        # of a symbolic link
    data: bytes | None          # content of a small file that has no extents


class InodeColumns(TypedDict, total=False):
    """What `update_inode` may set; `alloc` is kept by the metadata itself."""

    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    parent: int
    target: bytes | None
    data: bytes | None


@dataclass(slots=True, frozen=True)
class Extent:
    """Bytes [off, off+len) of a file are bytes [coff, coff+len) of a chunk. What no extent covers is a hole."""

    off: int
    len: int
    chunk: int
    coff: int


@dataclass(slots=True, frozen=True)
class Chunk:
    id: int
    hash: ChunkId
    pack: int
    off: int                    # of the sealed bytes in the pack
    clen: int                   # sealed length
    len: int                    # plain length
    refs: int                   # number of extent rows that name it


@dataclass(slots=True, frozen=True)
class Pack:
    id: int
    epoch: int
    name: PackName | None       # None until closed
    size: int
    state: str                  # "open" | "closed"
    record: str | None = None   # key of the record it rides in; None: it is an object of its own
    base: int = 0               # of its first byte in that object

    @property
    def key(self) -> str:
        """The object that its bytes lie in."""
        if self.record is not None:
            return self.record
        assert self.name is not None
        return pack_key(self.name)


class Riding(NamedTuple):
    """A pack that is no object of its own (see formats/record.py)."""

    pack: int
    key: str                    # of the record
    base: int


class Transaction(NamedTuple):
    """What one commit() left in the outbox."""

    id: int
    changeset_bytes: int
    complete: bool              # no pack was open: a record may end here


class OutboxSlice(NamedTuple):
    """What one record may carry: changes up to and with a complete transaction."""

    upto: int                   # last row of the outbox that is in it
    rows: list[int]             # of the outbox, one a transaction, oldest first
    bytes: int                  # the sum of their changesets; merged it is no more
    packs: int                  # the highest pack that they may name


@dataclass(slots=True)
class Counters:
    """Kept in memory, written as replicated rows by commit(). Numbers from next_* are never handed out twice."""

    next_ino: int
    next_chunk: int
    next_pack: int
    inodes: int
    used_bytes: int


class Totals(NamedTuple):
    """For `s3cfs stat`: what the file system holds as files, as distinct chunks, and sealed in packs."""

    inodes: int
    file_bytes: int             # sum of extents and inline data, before deduplication
    chunks: int
    chunk_bytes: int            # distinct chunks in use, plain
    sealed_bytes: int           # the same, as they lie in packs
    packs: int
    pack_bytes: int             # closed packs, whole


class ChunkGone(S3cfsError):
    """replace() was given a chunk that has no row any more: nothing was changed, upload its content again."""

    def __init__(self, chunk: int) -> None:
        super().__init__(f"chunk {chunk} is no longer there")
        self.chunk = chunk
