"""A directory as UnixFS: one node, or a tree of shards by the hash of names (HAMT) where one would be too large; and a symlink. Pure.

    shard   = a node of 256 places: place = a byte of the name's hash, the first at the root, the next one below ...
    link    = place, two hex digits; behind it the name, if one entry is all that is there, else nothing: a shard
    data    = UnixFS {1: HAMT_SHARD, 2: bits of the places that are taken, the last first, 5: 0x22, 6: 256}
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from s3cfs.backends.ipfs.cid import Cid
from s3cfs.backends.ipfs.dag import DIRECTORY, HAMT_SHARD, SYMLINK, Form, Link, Node, Root, encode_node
from s3cfs.backends.types import Body
from s3cfs.limits import KIB

DIRECTORY_MAX_BYTES = 256 * KIB    # of names and CIDs in one node. Kubo before 0.40 takes one of exactly that size for too large already
FANOUT = 256
HASH_TYPE = 0x22                   # murmur3-x64-64: the first half of the one of 128 bits
HASH_BYTES = 8

Put = Callable[[Cid, Body], None]


def symlink(target: str, form: Form, put: Put) -> Root:
    block, root = form.named(encode_node(Node(SYMLINK, data=_raw(target))), (), 0)
    put(root.cid, block.data)
    return root


def directory(entries: Iterable[Link], size: int, form: Form, put: Put) -> Root:
    """Of these entries, in any order, each name once. `size`: bytes of content below. Blocks are put before those that name them.

    ValueError: so many names have the same hash of 64 bits that no tree of shards holds them.
    """
    found = sorted(entries, key=lambda link: _raw(link.name))
    if sum(len(_raw(link.name)) + len(bytes(link.cid)) for link in found) > DIRECTORY_MAX_BYTES:
        return _shard([(_hash(_raw(link.name)), link) for link in found], 0, size, form, put)
    block, root = form.named(encode_node(Node(DIRECTORY, tuple(found))), found, size)
    put(root.cid, block.data)
    return root


def _shard(entries: Sequence[tuple[bytes, Link]], depth: int, size: int, form: Form, put: Put) -> Root:
    if depth == HASH_BYTES:
        raise ValueError(f"{entries[0][1].name!r} and {entries[1][1].name!r} have the same hash: IPFS has no directory that holds both")
    places: dict[int, list[tuple[bytes, Link]]] = {}
    for entry in entries:
        places.setdefault(entry[0][depth], []).append(entry)
    links, bits = [], 0
    for place in sorted(places):
        there, name = places[place], f"{place:02X}"
        bits |= 1 << place
        if len(there) == 1:
            link = there[0][1]
            links.append(Link(name + link.name, link.cid, link.tsize))
        else:
            below = _shard(there, depth + 1, 0, form, put)
            links.append(Link(name, below.cid, below.tsize))
    taken = bits.to_bytes((bits.bit_length() + 7) // 8, "big")
    block, root = form.named(encode_node(Node(HAMT_SHARD, tuple(links), taken, hash_type=HASH_TYPE, fanout=FANOUT)), links, size)
    put(root.cid, block.data)
    return root


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
