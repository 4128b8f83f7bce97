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
    if tables.rows["fsmeta"].get(("schema",)) != ("schema", b"0"):
        yield "another schema"
    yield from _names(tables)
    yield from _inodes(tables)
    yield from _extents(tables)
    yield from _chunks(tables)
    yield from _dangling(tables)
    yield from _counters(tables)


def _by_key(tables: Tables, table: str) -> dict[int, dict[str, Any]]:
    return {next(iter(row.values())): row for row in tables.named(table)}


def _names(tables: Tables) -> Iterator[str]:
    inodes, dentries = _by_key(tables, "inode"), list(tables.named("dentry"))
    orphans = _by_key(tables, "orphan")
    folders = {ino for ino, row in inodes.items() if stat.S_ISDIR(row["mode"])}
    names = Counter(row["ino"] for row in dentries)
    below = Counter(row["parent"] for row in dentries if row["ino"] in folders)
    for row in dentries:
        name, ino, parent = row["name"], row["ino"], row["parent"]
        if ino not in inodes or parent not in folders:
            yield f"the entry {name!r} of {parent} is of nothing, or in no folder"
        if not 1 <= len(name) <= 255 or name in (b".", b"..") or b"/" in name or b"\0" in name:
            yield f"the name {name!r}"
        if ino in folders and inodes[ino]["parent"] != parent:
            yield f"folder {ino} names another parent"
    for ino in folders - orphans.keys():
        seen = {ino}
        while (ino := inodes.get(ino, {}).get("parent", 1)) != 1:
            if ino in seen:
                yield f"folder {ino} cannot be reached"
                break
            seen.add(ino)
    for ino, row in inodes.items():
        named = ino == 1 or names[ino] > 0
        links = (2 + below[ino] if named else 0) if ino in folders else names[ino]
        if row["nlink"] != links or named == (ino in orphans) or (ino in folders and names[ino] != (ino != 1) and named):
            yield f"inode {ino} has {row['nlink']} links and {names[ino]} names"


def _inodes(tables: Tables) -> Iterator[str]:
    for ino, row in _by_key(tables, "inode").items():
        kind = stat.S_IFMT(row["mode"])
        if kind not in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
            yield f"inode {ino} is of no kind"
        if (row["target"] is not None) != (kind == stat.S_IFLNK) or (row["data"] is not None and kind != stat.S_IFREG):
            yield f"inode {ino} has a target or data that it cannot have"
        if row["rdev"] and kind not in (stat.S_IFCHR, stat.S_IFBLK):
            yield f"inode {ino} is no device"
        if row["size"] != len(row["target"] or b"") and kind != stat.S_IFREG:
            yield f"inode {ino} has the size {row['size']}"
        if (row["parent"] != 0) != (kind == stat.S_IFDIR):
            yield f"inode {ino} has the parent {row['parent']}"


def _extents(tables: Tables) -> Iterator[str]:
    inodes, chunks = _by_key(tables, "inode"), _by_key(tables, "chunk")
    trash = list(tables.named("trash"))
    alloc, reach = Counter[int](), dict[int, int]()
    for row in tables.named("extent"):
        ino, start, stop = row["ino"], row["off"], row["off"] + row["len"]
        gone = any(t["ino"] == ino and t["off"] <= start and t["stop"] >= stop for t in trash)
        part = any(t["ino"] == ino and t["off"] < stop and t["stop"] > start for t in trash)
        alloc[ino] += row["len"]
        chunk, inode = chunks.get(row["chunk"]), inodes.get(ino)
        if chunk is None or row["len"] < 1 or row["coff"] < 0 or row["coff"] + row["len"] > chunk["len"]:
            yield f"an extent of inode {ino} is not in its chunk"
        if start < reach.get(ino, 0) or part != gone:
            yield f"extents of inode {ino} overlap, or lie across a border of its trash"
        if not gone and (inode is None or inode["data"] is not None or stop > inode["size"]):
            yield f"an extent of inode {ino} is of no file, or beyond its size, or beside inline data"
        reach[ino] = stop
    for ino, inode in inodes.items():
        data = inode["data"] or b""
        if inode["alloc"] != alloc[ino] + len(data) or len(data) > inode["size"]:
            yield f"inode {ino} counts {inode['alloc']} bytes"


def _chunks(tables: Tables) -> Iterator[str]:
    packs, held = _by_key(tables, "pack"), Counter(row["chunk"] for row in tables.named("extent"))
    for id, row in _by_key(tables, "chunk").items():
        pack = packs.get(row["pack"])
        if row["refs"] != held[id] or (row["refs"] and pack is None):
            yield f"chunk {id} has {held[id]} references, or no pack"
        if len(row["hash"]) != 32 or row["off"] < 32 or (pack is not None and row["off"] + row["clen"] > pack["size"]):
            yield f"chunk {id} lies where none can"
    for id, pack in packs.items():
        if pack["state"] != "closed" or int(str(pack["name"]).partition("-")[0]) < pack["epoch"]:
            yield f"pack {id}, {pack['name']}, is {pack['state']}"


def _dangling(tables: Tables) -> Iterator[str]:
    inodes, chunks = _by_key(tables, "inode"), _by_key(tables, "chunk")
    yield from (f"an attribute of inode {row['ino']} is of nothing" for row in tables.named("xattr") if row["ino"] not in inodes)
    yield from (f"orphan {row['ino']} is nothing" for row in tables.named("orphan") if row["ino"] not in inodes)
    yield from (f"the mark of chunk {row['id']} is of nothing" for row in tables.named("bad_chunk") if row["id"] not in chunks)


def _counters(tables: Tables) -> Iterator[str]:
    inodes = _by_key(tables, "inode")
    sums = {"inodes": len(inodes), "used_bytes": sum(row["alloc"] for row in inodes.values())}
    highest = {"next_ino": inodes, "next_chunk": _by_key(tables, "chunk"), "next_pack": _by_key(tables, "pack")}
    yield from (f"the counter {name} is {tables.value(name)}, not {value}" for name, value in sums.items() if tables.value(name) != value)
    yield from (f"the counter {name} is used" for name, rows in highest.items() if tables.value(name) <= max(rows, default=0))
