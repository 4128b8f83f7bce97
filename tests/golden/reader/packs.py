"""Packs, and chunks out of them."""
from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from blake3 import blake3

from .sealed import HEADER, OVERHEAD, VERSION, Keys, header, integer, unpack
from .store import Store, Wrong

CHUNKS_AT = HEADER + 16
ENTRY, TRAILER = 44, 16
CHUNK_MAX = 16 << 20
KEPT = 8


@dataclass(frozen=True)
class Entry:
    chunk: bytes
    offset: int
    size: int
    length: int


class Packs:
    def __init__(self, store: Store, keys: Keys, riding: Mapping[str, tuple[str, int, int]] | None = None) -> None:
        """`riding`: packs that are no objects of their own, by name: key of the object, first byte, size."""
        self._store, self._keys, self._riding = store, keys, {} if riding is None else riding
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def whole(self, name: str) -> bytes:
        """All bytes of a pack, which are those that its name is the hash of."""
        found = re.fullmatch(r"(\d{1,10})-([0-9a-f]{64})", name)
        key = self._key(name)
        if found is None:
            raise Wrong(key, "no pack's name")
        data = self._kept.get(name)
        if data is None:
            _, base, size = self._riding.get(name, (key, 0, None))
            data = self._kept[name] = self._store.get(key)[base:None if size is None else base + size]
            if blake3(data).hexdigest() != found[2]:
                del self._kept[name]
                raise Wrong(key, "its bytes are not those that its name is the hash of")
            if header(key, data, "P") != int(found[1]):
                raise Wrong(key, "it is of another epoch than its name says")
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return data

    def _key(self, name: str) -> str:
        """The object that it is in."""
        return self._riding[name][0] if name in self._riding else key_of(name)

    def index(self, name: str) -> list[Entry]:
        key, data = self._key(name), self.whole(name)
        size, count = integer(data, len(data) - TRAILER, 4), integer(data, len(data) - TRAILER + 4, 4)
        at = len(data) - TRAILER - size
        if data[-8:] != b"s3cfsP\0\0" or size != OVERHEAD + ENTRY * count or count < 1 or at < CHUNKS_AT:
            raise Wrong(key, "its trailer is damaged")
        aad = b"pack index" + VERSION.to_bytes(2, "little") + len(data).to_bytes(8, "little")
        plain = self._keys.open(key, "index", data[at:-TRAILER], aad)
        entries = [Entry(plain[one:one + 32], integer(plain, one + 32, 4), integer(plain, one + 36, 4), integer(plain, one + 40, 4))
                   for one in range(0, len(plain), ENTRY)]
        end = CHUNKS_AT
        for entry in entries:
            if entry.offset < end or not 1 <= entry.length <= CHUNK_MAX or not OVERHEAD < entry.size <= entry.length + OVERHEAD + 1:
                raise Wrong(key, "an entry of its index is not possible")
            end = entry.offset + entry.size
        if end > at:
            raise Wrong(key, "a chunk lies in its index")
        return entries

    def chunk(self, name: str, hash: bytes, offset: int, size: int, length: int) -> bytes:
        """The content of the chunk with that id, `length` bytes."""
        key = self._key(name)
        sealed = self.whole(name)[offset:offset + size]
        inner = self._keys.open(key, "chunk", sealed, b"chunk" + self._keys.fs_id + VERSION.to_bytes(2, "little") + hash)
        if inner[:1] == b"\0":
            content = inner[1:]
        elif inner[:1] == b"\1":
            content = unpack(key, inner[1:], length)
        else:
            raise Wrong(key, "a chunk of an unknown compression")
        if len(content) != length or self._keys.chunk_id(content) != hash:
            raise Wrong(key, "a chunk has another content than its id says")
        return content


def key_of(name: str) -> str:
    return f"pack/{name.partition('-')[2][:2]}/{name}"
