"""The replicated tables: their columns, the state they begin in, changes applied to them, and what must be true of the rows."""
from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .changeset import UNDEFINED, Change, Cut, Undefined, changes
from .store import Wrong

Row = tuple[Any, ...]

#: columns in their order: those of the primary key have a digit for their place in it; "?" is what may be NULL
COLUMNS: dict[str, dict[str, str]] = {
    "fsmeta": {"key": "TEXT 1", "value": "BLOB"},
    "counter": {"name": "TEXT 1", "value": "INTEGER"},
    "inode": {"ino": "INTEGER 1", "mode": "INTEGER", "nlink": "INTEGER", "uid": "INTEGER", "gid": "INTEGER", "rdev": "INTEGER",
              "size": "INTEGER", "alloc": "INTEGER", "atime_ns": "INTEGER", "mtime_ns": "INTEGER", "ctime_ns": "INTEGER",
              "parent": "INTEGER", "target": "BLOB?", "data": "BLOB?"},
    "dentry": {"parent": "INTEGER 1", "name": "BLOB 2", "ino": "INTEGER"},
    "extent": {"ino": "INTEGER 1", "off": "INTEGER 2", "len": "INTEGER", "chunk": "INTEGER 3", "coff": "INTEGER"},
    "chunk": {"id": "INTEGER 1", "hash": "BLOB", "pack": "INTEGER", "off": "INTEGER", "clen": "INTEGER", "len": "INTEGER",
              "refs": "INTEGER"},
    "pack": {"id": "INTEGER 1", "epoch": "INTEGER", "name": "TEXT?", "size": "INTEGER", "state": "TEXT"},
    "xattr": {"ino": "INTEGER 1", "name": "BLOB 2", "value": "BLOB"},
    "orphan": {"ino": "INTEGER 1"},
    "trash": {"ino": "INTEGER 1", "off": "INTEGER 2", "stop": "INTEGER"},
    "bad_chunk": {"id": "INTEGER 1"},
}
INITIAL: dict[str, list[Row]] = {
    "fsmeta": [("schema", b"0")],
    "counter": [("next_ino", 2), ("next_chunk", 1), ("next_pack", 1), ("inodes", 1), ("used_bytes", 0)],
    "inode": [(1, 0o040755, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, None, None)],
}
_PYTHON = {"INTEGER": int, "TEXT": str, "BLOB": bytes}
_TYPES = {table: [(_PYTHON[kind.split()[0].rstrip("?")], "?" in kind) for kind in columns.values()] for table, columns in COLUMNS.items()}
_KEYS = {table: tuple(at for _, at in sorted((kind[-1], at) for at, kind in enumerate(columns.values()) if kind[-1].isdigit()))
         for table, columns in COLUMNS.items()}


class Tables:
    """Every row, by its primary key."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[Row, Row]] = {table: {} for table in COLUMNS}
        for table, rows in INITIAL.items():
            for row in rows:
                self.rows[table][_key(table, row)] = row

    def apply(self, where: str, changeset: bytes) -> None:
        """All rows of a changeset. `where`: the object that it comes from. Wrong; then some rows may be changed and others not."""
        try:
            for change in changes(changeset):
                self._apply(where, change)
        except Cut as error:
            raise Wrong(where, str(error)) from None

    def _apply(self, where: str, change: Change) -> None:
        types = _TYPES.get(change.table, [])
        if len(types) != change.columns or _KEYS[change.table] != change.key:
            raise Wrong(where, f"a change of a table {change.table} with {change.columns} columns, which is not of this format")
        rows = self.rows[change.table]
        row = change.old if change.old is not None else change.new
        assert row is not None
        key = _key(change.table, row)
        there, name = rows.get(key), f"{change.operation} of {change.table} {key}"
        if (there is None) != (change.operation == "insert"):
            raise Wrong(where, f"{name}: the row is {'not ' if there is None else ''}there")
        if there is not None and change.old is not None and any(
                old is not UNDEFINED and old != now for old, now in zip(change.old, there, strict=True)):
            raise Wrong(where, f"{name}: the row is another one")
        if change.new is None:
            del rows[key]
            return
        made = tuple(now if isinstance(new, Undefined) else new for new, now in zip(change.new, there or change.new, strict=True))
        for value, (kind, nullable) in zip(made, types, strict=True):
            if type(value) is not kind and not (nullable and value is None):
                raise Wrong(where, f"{name}: a value of another type")
        if _key(change.table, made) != key:
            raise Wrong(where, f"{name}: it changes the key")
        rows[key] = made

    def named(self, table: str) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, in the order of their keys."""
        for _, row in sorted(self.rows[table].items()):
            yield dict(zip(COLUMNS[table], row, strict=True))

    def value(self, name: str) -> int:
        """A counter."""
        return int(self.rows["counter"][name,][1])


def _key(table: str, row: tuple[Any, ...]) -> Row:
    return tuple([row[at] for at in _KEYS[table]])


def problems(tables: Tables) -> Iterator[str]:
    """What the document says of the rows of every commit, and is not true of these."""
    inodes = {row["ino"]: row for row in tables.named("inode")}
    chunks = {row["id"]: row for row in tables.named("chunk")}
    packs = {row["id"]: row for row in tables.named("pack")}
    extents, trash, dentries = list(tables.named("extent")), list(tables.named("trash")), list(tables.named("dentry"))
    orphans = {row["ino"] for row in tables.named("orphan")}
    folders = {ino for ino, row in inodes.items() if stat.S_ISDIR(row["mode"])}
    if tables.rows["fsmeta"].get(("schema",)) != ("schema", b"0"):
        yield "another schema"
    names = Counter(row["ino"] for row in dentries)
    below = Counter(row["parent"] for row in dentries if row["ino"] in folders)
    for row in dentries:
        if row["ino"] not in inodes or row["parent"] not in folders:
            yield f"the entry {row['name']!r} of {row['parent']} is of nothing, or in no folder"
        elif row["ino"] in folders and inodes[row["ino"]]["parent"] != row["parent"]:
            yield f"folder {row['ino']} names another parent"
    held, alloc, reach = Counter[int](), Counter[int](), dict[int, int]()
    for row in extents:
        gone = any(t["ino"] == row["ino"] and t["off"] <= row["off"] and t["stop"] >= row["off"] + row["len"] for t in trash)
        part = any(t["ino"] == row["ino"] and t["off"] < row["off"] + row["len"] and t["stop"] > row["off"] for t in trash)
        held[row["chunk"]] += 1
        alloc[row["ino"]] += row["len"]
        chunk, inode = chunks.get(row["chunk"]), inodes.get(row["ino"])
        if chunk is None or row["len"] < 1 or row["coff"] < 0 or row["coff"] + row["len"] > chunk["len"]:
            yield f"an extent of inode {row['ino']} is not in its chunk"
        if row["off"] < reach.get(row["ino"], 0) or part != gone:
            yield f"extents of inode {row['ino']} overlap, or lie across a border of its trash"
        if not gone and (inode is None or inode["data"] is not None or row["off"] + row["len"] > inode["size"]):
            yield f"an extent of inode {row['ino']} is of no file, or beyond its size, or beside inline data"
        reach[row["ino"]] = row["off"] + row["len"]
    for ino, row in inodes.items():
        named = ino == 1 or names[ino] > 0
        links = (2 + below[ino] if named else 0) if ino in folders else names[ino]
        if row["nlink"] != links or named == (ino in orphans) or (ino in folders and names[ino] != (ino != 1)):
            yield f"inode {ino} has {row['nlink']} links and {names[ino]} names"
        if row["alloc"] != alloc[ino] + len(row["data"] or b"") or len(row["data"] or b"") > row["size"]:
            yield f"inode {ino} counts {row['alloc']} bytes"
    for id, row in chunks.items():
        pack = packs.get(row["pack"])
        if row["refs"] != held[id] or (row["refs"] and (pack is None or pack["name"] is None or pack["state"] != "closed")):
            yield f"chunk {id} has {held[id]} references, or no pack"
        if pack is not None and row["off"] + row["clen"] > pack["size"]:
            yield f"chunk {id} lies outside its pack"
    yield from (f"{one} is of nothing" for one in _dangling(tables, inodes.keys(), chunks.keys()))
    sums = {"inodes": len(inodes), "used_bytes": sum(row["alloc"] for row in inodes.values())}
    yield from (f"the counter {name} is {tables.value(name)}, not {value}" for name, value in sums.items() if tables.value(name) != value)
    highest = {"next_ino": inodes, "next_chunk": chunks, "next_pack": packs}
    yield from (f"the counter {name} is used" for name, rows in highest.items() if tables.value(name) <= max(rows, default=0))


def _dangling(tables: Tables, inodes: Any, chunks: Any) -> Iterator[str]:
    yield from (f"an attribute of inode {row['ino']}" for row in tables.named("xattr") if row["ino"] not in inodes)
    yield from (f"orphan {row['ino']}" for row in tables.named("orphan") if row["ino"] not in inodes)
    yield from (f"the mark of chunk {row['id']}" for row in tables.named("bad_chunk") if row["id"] not in chunks)
