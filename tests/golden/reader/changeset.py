"""The bytes of an SQLite changeset, taken apart without SQLite."""
from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

Value = int | float | str | bytes | None


class Undefined:
    """A column that a change does not hold."""


UNDEFINED: Final = Undefined()
Cell = Value | Undefined


class Cut(Exception):
    """These bytes are no changeset."""


@dataclass(frozen=True)
class Change:
    table: str
    key: tuple[int, ...]                   # columns of the primary key, in its order
    columns: int
    operation: str                         # insert | update | delete
    indirect: bool
    old: tuple[Cell, ...] | None
    new: tuple[Cell, ...] | None


OPERATIONS = {18: "insert", 23: "update", 9: "delete"}


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        found = self._data[self._at:self._at + size]
        if len(found) != size:
            raise Cut("a changeset is cut off")
        self._at += size
        return found

    def text(self) -> str:
        """Up to a zero byte."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise Cut("a table's name has no end")
        found = self.take(end - self._at)
        self._at += 1
        return _utf8(found)

    def varint(self) -> int:
        """Seven bits a byte, the highest first; all but the last have bit 7. A ninth byte would have eight bits."""
        value = 0
        for count in range(9):
            byte = self.take(1)[0]
            if count == 8:
                return value << 8 | byte
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                break
        return value

    def cell(self) -> Cell:
        kind = self.take(1)[0]
        if kind == 0:
            return UNDEFINED
        if kind == 1:
            return int.from_bytes(self.take(8), "big", signed=True)
        if kind == 2:
            return float(struct.unpack(">d", self.take(8))[0])
        if kind == 3:
            return _utf8(self.take(self.varint()))
        if kind == 4:
            return self.take(self.varint())
        if kind == 5:
            return None
        raise Cut(f"there is no type {kind}")


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Cut("a text is not UTF-8") from None


def changes(data: bytes) -> Iterator[Change]:
    """All rows that it changes, in its order. Cut."""
    stream = _Bytes(data)
    table, flags = "", b""
    while stream.more:
        byte = stream.take(1)[0]
        if byte == ord("T"):
            flags = stream.take(stream.varint())
            table = stream.text()
            continue
        if byte not in OPERATIONS or not table:
            raise Cut(f"{byte} is no operation")
        operation, indirect = OPERATIONS[byte], stream.take(1)[0] != 0
        old = tuple([stream.cell() for _ in flags]) if operation != "insert" else None
        new = tuple([stream.cell() for _ in flags]) if operation != "delete" else None
        yield Change(table, tuple(sorted((at for at in range(len(flags)) if flags[at]), key=lambda at: flags[at])), len(flags), operation,
                     indirect, old, new)
