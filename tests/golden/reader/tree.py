"""Rows to files."""
from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .history import History
from .packs import Packs
from .sealed import Keys
from .store import Newer, Store, Wrong
from .superblock import current, unlock
from .tables import Tables

Row = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """What a path leads to. Paths begin with "/" and are bytes, the root is b""."""

    path: bytes
    inode: Row
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def ino(self) -> int:
        return int(self.inode["ino"])

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.inode["mode"])

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.inode["mode"])


class Filesystem:
    def __init__(self, tables: Tables, packs: Packs) -> None:
        self.tables, self.packs = tables, packs
        if tables.rows["fsmeta"].get(("schema",)) != ("schema", b"0"):
            raise Newer("tables of another version")
        self._inodes = {row["ino"]: row for row in tables.named("inode")}
        self._chunks = {row["id"]: row for row in tables.named("chunk")}
        self._names = {row["id"]: row["name"] for row in tables.named("pack")}
        self._children: dict[int, list[tuple[bytes, int]]] = {}
        for row in tables.named("dentry"):
            self._children.setdefault(row["parent"], []).append((row["name"], row["ino"]))
        self._xattrs: dict[int, dict[bytes, bytes]] = {}
        for row in tables.named("xattr"):
            self._xattrs.setdefault(row["ino"], {})[row["name"]] = row["value"]
        trash = [(row["ino"], row["off"], row["stop"]) for row in tables.named("trash")]
        self._extents: dict[int, list[Row]] = {}
        for row in tables.named("extent"):
            if not any(ino == row["ino"] and off <= row["off"] < stop for ino, off, stop in trash):
                self._extents.setdefault(row["ino"], []).append(row)

    def walk(self, path: bytes = b"", ino: int = 1) -> Iterator[Node]:
        """Everything below, itself first, names in the order of their bytes."""
        if ino not in self._inodes:
            raise Wrong("metadata", f"{path!r} names inode {ino}, which is not there")
        node = Node(path, self._inodes[ino], self._xattrs.get(ino, {}))
        yield node
        for name, child in self._children.get(ino, []) if node.is_folder else []:
            yield from self.walk(path + b"/" + name, child)

    def content(self, ino: int) -> bytes:
        """Of a regular file."""
        inode = self._inodes[ino]
        made = bytearray(inode["size"])
        made[:len(inode["data"] or b"")] = inode["data"] or b""
        for row in self._extents.get(ino, []):
            piece = self._chunk(row["chunk"])[row["coff"]:row["coff"] + row["len"]]
            made[row["off"]:row["off"] + row["len"]] = piece
        if len(made) != inode["size"]:
            raise Wrong("metadata", f"an extent of inode {ino} lies beyond its size")
        return bytes(made)

    def _chunk(self, id: int) -> bytes:
        chunk = self._chunks.get(id)
        name = self._names.get(chunk["pack"]) if chunk is not None else None
        if chunk is None or name is None:
            raise Wrong("metadata", f"chunk {id} lies nowhere")
        return self.packs.chunk(name, chunk["hash"], chunk["off"], chunk["clen"], chunk["len"])


def open_filesystem(store: Store, **secret: Any) -> Filesystem:
    """`secret`: as for `unlock`."""
    keys: Keys = unlock(current(store), **secret)
    history = History(store, keys)
    return Filesystem(history.tables(), Packs(store, keys, history.riding))
