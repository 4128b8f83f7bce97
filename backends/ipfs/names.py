"""The name table: which blocks make the object of a key. One small object for each key, written once, like everything that s3cfs writes.

    TOP/FOLDER/TABLE/KEY                    an entry
    TOP/FOLDER/TABLE.gone/SECONDS-TOKEN     what deleted objects were made of, until the collector looks (collector.py)

FOLDER is where the blocks lie ('~' and '/' in it are written ~0 and ~1; "~" where they lie at the top): all tables of the same blocks lie
side by side, so the collector finds them all. TOP is `s3cfs.names`, or `names.s3cfs` where the other one begins as rootDirectory does: the
plugin lists by a part of a name, and would take the table for its own. A key with small letters, '.' and '/' in it can be no block's, so a
node's garbage collection leaves it alone (docs/ipfs.md).

    entry  = magic 16 | version u8 | size u64 | sha2-256 of each leaf (32 bytes each) | BLAKE2b-256 of key, NUL and all before
    burial = magic 16 | version u8 |            sha2-256 of each block                | BLAKE2b-256 of name, NUL and all before

The root and the nodes between follow from the leaves (dag.py). The checksum holds the key, so no entry passes for that of another key.
"""
from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from s3cfs.backends.base import Backend, Body
from s3cfs.backends.ipfs.cid import DIGEST_BYTES
from s3cfs.backends.ipfs.dag import Tree, leaf_count
from s3cfs.backends.ipfs.datastore import OURS
from s3cfs.errors import ConfigError

MAIN = "main"                      # the table that is used when nobody names one
VERSION = 1
GONE = ".gone"

_ENTRY, _BURIAL = b"s3cfs ipfs name\n", b"s3cfs ipfs gone\n"
_HEAD = struct.Struct("<16sBQ")
_SHORT = struct.Struct("<16sB")
_CHECK_BYTES = 32
_TABLE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NAME = re.compile(r"(\d{1,15})-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Entry:
    """`leaves`: 32 bytes for each block of content, in their order."""

    size: int
    leaves: bytes

    @classmethod
    def of(cls, size: int, digests: Iterable[bytes]) -> Entry:
        return cls(size, b"".join(digests))

    def encode(self, key: str) -> bytes:
        return _sealed(key, _HEAD.pack(_ENTRY, VERSION, self.size) + self.leaves)

    @classmethod
    def decode(cls, key: str, data: Body) -> Entry:
        """ValueError: damaged, of another key, or of a newer s3cfs."""
        said = _opened(key, data, _HEAD.size)
        magic, version, size = _HEAD.unpack(said[:_HEAD.size])
        if magic != _ENTRY or version != VERSION:
            raise ValueError(f"it is of no kind that is known here (version {version})")
        found = cls(size, said[_HEAD.size:])
        if len(found.leaves) != leaf_count(size) * DIGEST_BYTES:
            raise ValueError(f"it names {len(found.leaves) // DIGEST_BYTES} blocks, which are not as many as {size} bytes have")
        return found

    @property
    def digests(self) -> list[bytes]:
        return _split(self.leaves)

    @property
    def tree(self) -> Tree:
        return Tree.of(self.size, self.digests)

    @property
    def blocks(self) -> Iterator[bytes]:
        """Digests of all its blocks, the nodes too."""
        yield from self.digests
        yield from (node.digest for node in self.tree.nodes)


def encode_burial(name: str, digests: Iterable[bytes]) -> bytes:
    return _sealed(name, _SHORT.pack(_BURIAL, VERSION) + b"".join(digests))


def decode_burial(name: str, data: Body) -> list[bytes]:
    """The digests. ValueError: as with an entry."""
    said = _opened(name, data, _SHORT.size)
    magic, version = _SHORT.unpack(said[:_SHORT.size])
    if magic != _BURIAL or version != VERSION or (len(said) - _SHORT.size) % DIGEST_BYTES:
        raise ValueError(f"it is of no kind that is known here (version {version})")
    return _split(said[_SHORT.size:])


def _split(digests: bytes) -> list[bytes]:
    return [digests[at:at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]


def _sealed(name: str, said: bytes) -> bytes:
    return said + _check(name, said)


def _opened(name: str, data: Body, least: int) -> bytes:
    said = bytes(data[:-_CHECK_BYTES])
    if len(said) < least or bytes(data[-_CHECK_BYTES:]) != _check(name, said):
        raise ValueError("it is damaged")
    return said


def _check(name: str, said: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + b"\0" + said, digest_size=_CHECK_BYTES).digest()


class Table:
    """Where the entries of one table lie. `folder`: of its blocks (`Datastore.blocks_folder`)."""

    def __init__(self, folder: str, table: str = MAIN) -> None:
        if not _TABLE.fullmatch(table):
            raise ConfigError(f"backend option names is the name of a table (small letters, digits and '-'), not {table!r}")
        self.shelf = shelf(folder)
        self.entries = f"{self.shelf}{table}/"
        self.gone = f"{self.shelf}{table}{GONE}/"

    def object_of(self, key: str) -> str:
        return self.entries + key


def shelf(folder: str) -> str:
    """The folder of all tables of the blocks in `folder`, with '/' at its end."""
    first = folder.partition("/")[0]
    top = next(top for top in OURS if not first or not (top.startswith(first) or first.startswith(top)))
    return f"{top}/{folder.replace('~', '~0').replace('/', '~1') or '~'}/"


def tables(store: Backend, folder: str) -> list[str]:
    """Names of all tables there, those that only have burials left too."""
    return sorted({name.removesuffix(GONE) for name in store.folders(shelf(folder))})


def burial_name(seconds: int, token: str) -> str:
    """`token`: 16 hex digits."""
    return f"{seconds}-{token}"


def buried_at(name: str) -> int | None:
    """Unix seconds by the clock of who deleted. None: this is no burial's name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None
