"""A directory as UnixFS: one node, or a tree of shards by the hash of names (HAMT) where one would be too large; and a symlink. Pure.

    shard   = a node of 256 places: place = a byte of the name's hash, the first at the root, the next one below ...
    link    = place, two hex digits; behind it the name, if one entry is all that is there, else nothing: a shard
    data    = UnixFS {1: HAMT_SHARD, 2: bits of the places that are taken, the last first, 5: 0x22, 6: 256}
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

from s3cfs.backends.ipfs.cid import Cid
from s3cfs.backends.ipfs.dag import DIRECTORY, HAMT_SHARD, SYMLINK, Form, Link, Node, Root, encode_node
from s3cfs.backends.types import Body
from s3cfs.limits import KIB

DIRECTORY_MAX_BYTES = 256 * KIB    # of names and CIDs in one node. Kubo before 0.40 takes one of exactly that size for too large already
FANOUT = 256
HASH_TYPE = 0x22                   # murmur3-x64-64: the first half of the one of 128 bits
HASH_BYTES = 8

Put = Callable[[Cid, Body], None]

_TSIZE_BYTES = 8


def symlink(target: str, form: Form, put: Put) -> Root:
    block, root = form.named(encode_node(Node(SYMLINK, data=_raw(target))), (), 0)
    put(root.cid, block.data)
    return root


class Directory:
    """One that is being put together: entries in any order, each name once. It takes some 120 bytes and the name for each."""

    def __init__(self) -> None:
        self.size = 0                                  # bytes of content below
        self._links_bytes = 0                          # as Kubo estimates how large a node would be
        self._entries: list[bytes] = []                # name, 0, encoded bytes below, CID: in the order of names when sorted

    def add(self, name: str, root: Root) -> None:
        raw, cid = _raw(name), bytes(root.cid)
        self.size += root.size
        self._links_bytes += len(raw) + len(cid)
        self._entries.append(b"%b\0%b%b" % (raw, root.tsize.to_bytes(_TSIZE_BYTES, "big"), cid))

    def finish(self, form: Form, put: Put) -> Root:
        """Blocks are put before those that name them; the root is the last one. The entries are gone then.

        ValueError: two names have the same hash of 64 bits, so no tree of shards holds both.
        """
        entries, self._entries = self._entries, []
        if self._links_bytes > DIRECTORY_MAX_BYTES:
            for i, entry in enumerate(entries):        # in place: a directory that is this large may be very large
                entries[i] = _hash(entry[:entry.index(0)]) + entry
            entries.sort()
            return _shard(entries, 0, len(entries), 0, self.size, form, put)
        entries.sort()
        return _node(Node(DIRECTORY, tuple(map(_link, entries))), self.size, form, put)


def _shard(entries: list[bytes], start: int, end: int, depth: int, size: int, form: Form, put: Put) -> Root:
    """Of entries[start:end], whose hashes begin with the same `depth` bytes."""
    if depth == HASH_BYTES:
        first, second = (_link(entry[HASH_BYTES:]).name for entry in entries[start:start + 2])
        raise ValueError(f"{first!r} and {second!r} have the same hash: IPFS has no directory that holds both")
    links, taken = [], 0
    for place, at, after in _places(entries, start, end, depth):
        taken |= 1 << place
        if after - at == 1:
            link = _link(entries[at][HASH_BYTES:])
            links.append(Link(f"{place:02X}{link.name}", link.cid, link.tsize))
        else:
            below = _shard(entries, at, after, depth + 1, 0, form, put)
            links.append(Link(f"{place:02X}", below.cid, below.tsize))
    bits = taken.to_bytes((taken.bit_length() + 7) // 8, "big")
    return _node(Node(HAMT_SHARD, tuple(links), bits, hash_type=HASH_TYPE, fanout=FANOUT), size, form, put)


def _places(entries: list[bytes], start: int, end: int, depth: int) -> Iterator[tuple[int, int, int]]:
    """Each byte that a hash has there, and which entries have it."""
    while start < end:
        place, at = entries[start][depth], start
        while start < end and entries[start][depth] == place:
            start += 1
        yield place, at, start


def _node(node: Node, size: int, form: Form, put: Put) -> Root:
    block, root = form.named(encode_node(node), node.links, size)
    put(root.cid, block.data)
    return root


def _link(entry: bytes) -> Link:
    end = entry.index(0)
    at = end + 1 + _TSIZE_BYTES
    return Link(entry[:end].decode("utf-8", "surrogateescape"), Cid.decode(entry[at:]), int.from_bytes(entry[end + 1:at], "big"))


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _hash(data: bytes) -> bytes:
    """MurmurHash3 x64 with seed 0, the first 64 bits of 128, highest byte first."""
    a = b = 0
    whole = len(data) // 16 * 16
    for at in range(0, whole, 16):
        a ^= _mixed(int.from_bytes(data[at:at + 8], "little"), _C1, 31, _C2)
        a = (_rotated(a, 27) + b) * 5 + 0x52dce729 & _MASK
        b ^= _mixed(int.from_bytes(data[at + 8:at + 16], "little"), _C2, 33, _C1)
        b = (_rotated(b, 31) + a) * 5 + 0x38495ab5 & _MASK
    b ^= _mixed(int.from_bytes(data[whole + 8:], "little"), _C2, 33, _C1)
    a ^= _mixed(int.from_bytes(data[whole:whole + 8], "little"), _C1, 31, _C2)
    a, b = a ^ len(data), b ^ len(data)
    a = a + b & _MASK
    b = b + a & _MASK
    return (_finished(a) + _finished(b) & _MASK).to_bytes(HASH_BYTES, "big")


_MASK = (1 << 64) - 1
_C1, _C2 = 0x87c37b91114253d5, 0x4cf5ad432745937f


def _rotated(number: int, by: int) -> int:
    return (number << by | number >> 64 - by) & _MASK


def _mixed(number: int, first: int, by: int, second: int) -> int:
    return _rotated(number * first & _MASK, by) * second & _MASK


def _finished(number: int) -> int:
    number = (number ^ number >> 33) * 0xff51afd7ed558ccd & _MASK
    number = (number ^ number >> 33) * 0xc4ceb9fe1a85ec53 & _MASK
    return number ^ number >> 33
