"""Inodes, names, extended attributes, and orphans (inodes without a name that something still holds open).

Each method is one piece of a transaction. Link counts, times and a directory's `parent` are the caller's to set: what POSIX
wants changed by an operation is decided in `vfs`, in one place.
"""
from __future__ import annotations

from typing import Any, Unpack

import apsw

from s3cfs.errors import EntryExists, NoSuchEntry, StaleInode
from s3cfs.meta.content import Content
from s3cfs.meta.engine import Engine
from s3cfs.meta.types import Inode, InodeColumns

_COLUMNS = ("ino", "mode", "nlink", "uid", "gid", "rdev", "size", "alloc", "atime_ns", "mtime_ns", "ctime_ns", "parent", "target", "data")
_SETTABLE = frozenset(InodeColumns.__annotations__)
_GET = f"SELECT {', '.join(_COLUMNS)} FROM inode WHERE ino = ?"
_JOINED = ", ".join(f"i.{name}" for name in _COLUMNS)
_LOOKUP = f"SELECT {_JOINED} FROM dentry AS d CROSS JOIN inode AS i ON i.ino = d.ino WHERE d.parent = ? AND d.name = ?"
_CHILDREN = f"""SELECT d.name, {_JOINED} FROM dentry AS d INDEXED BY dentry_by_place CROSS JOIN inode AS i ON i.ino = d.ino
    WHERE d.parent = ? AND place(d.name) > ? ORDER BY place(d.name) LIMIT ?"""
_INSERT = f"INSERT INTO inode VALUES ({', '.join('?' * len(_COLUMNS))})"


class Tree:
    def __init__(self, engine: Engine, content: Content) -> None:
        self._engine, self._content = engine, content
        self._one, self._all, self._run = engine.one, engine.all, engine.run
        self._updates: dict[tuple[str, ...], str] = {}

    # ------------------------------------------------------------ inodes

    async def get(self, ino: int) -> Inode | None:
        row = self._one(_GET, (ino,))
        return Inode(*row) if row else None

    async def new_inode(self, mode: int, uid: int, gid: int, rdev: int, now_ns: int, *, nlink: int,
                        parent_dir: int = 0, target: bytes | None = None) -> Inode:
        """All three times are `now_ns`; the size is 0, or the length of a symbolic link's target."""
        counters = self._engine.counters
        size = len(target) if target is not None else 0
        ino = counters.next_ino
        self._run(_INSERT, (ino, mode, nlink, uid, gid, rdev, size, 0, now_ns, now_ns, now_ns, parent_dir, target, None))
        counters.next_ino = ino + 1
        counters.inodes += 1
        return Inode(ino, mode, nlink, uid, gid, rdev, size, 0, now_ns, now_ns, now_ns, parent_dir, target, None)

    async def update_inode(self, ino: int, **columns: Unpack[InodeColumns]) -> None:
        """Set columns; nothing is written when they are so already. `data` carries `alloc` along. StaleInode when it is gone."""
        values: dict[str, Any] = dict(columns)
        if "data" in values:
            self._content.account_inline(ino, values["data"])
        names = tuple(values)
        sql = self._updates.get(names)
        if sql is None:
            sql = self._updates[names] = _update_statement(names)
        if sql and not self._run(sql, (ino, *values.values())) and not self._one("SELECT 1 FROM inode WHERE ino = ?", (ino,)):
            raise StaleInode(f"inode {ino} is gone")

    async def drop_inode(self, ino: int) -> None:
        """The row and all that belongs to it: extents (with their references), attributes, the orphan's mark."""
        self._content.drop_content(ino)
        self._run("DELETE FROM xattr WHERE ino = ?", (ino,))
        self._run("DELETE FROM orphan WHERE ino = ?", (ino,))
        self._run("DELETE FROM inode WHERE ino = ?", (ino,))
        self._engine.counters.inodes -= 1

    async def add_orphan(self, ino: int) -> None:
        self._run("INSERT OR IGNORE INTO orphan VALUES (?)", (ino,))

    async def drop_orphan(self, ino: int) -> None:
        """Only the mark: the inode has a name again."""
        self._run("DELETE FROM orphan WHERE ino = ?", (ino,))

    async def orphans(self) -> list[int]:
        return [row[0] for row in self._all("SELECT ino FROM orphan ORDER BY ino")]

    # ------------------------------------------------------------ names

    async def lookup(self, parent: int, name: bytes) -> Inode | None:
        row = self._one(_LOOKUP, (parent, name))
        return Inode(*row) if row else None

    async def children(self, parent: int, after: int, limit: int) -> list[tuple[bytes, Inode]]:
        """Names with their inodes, in the order of their places, behind the place `after` (0: from the start)."""
        return [(row[0], Inode(*row[1:])) for row in self._all(_CHILDREN, (parent, after, limit))]

    async def is_empty(self, parent: int) -> bool:
        return self._one("SELECT 1 FROM dentry WHERE parent = ? LIMIT 1", (parent,)) is None

    async def link_name(self, parent: int, name: bytes, ino: int) -> None:
        try:
            self._run("INSERT INTO dentry VALUES (?, ?, ?)", (parent, name, ino))
        except apsw.ConstraintError as error:
            raise EntryExists(f"inode {parent} has an entry {name!r} already") from error

    async def unlink_name(self, parent: int, name: bytes) -> None:
        if not self._run("DELETE FROM dentry WHERE parent = ? AND name = ?", (parent, name)):
            raise NoSuchEntry(f"inode {parent} has no entry {name!r}")

    async def move_name(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        """Only the entry: what was there under the new name must have been unlinked, and `parent` is the caller's to update."""
        try:
            hit = self._run("UPDATE dentry SET parent = ?, name = ? WHERE parent = ? AND name = ?", (new_parent, new_name, parent, name))
        except apsw.ConstraintError as error:
            raise EntryExists(f"inode {new_parent} has an entry {new_name!r} already") from error
        if not hit:
            raise NoSuchEntry(f"inode {parent} has no entry {name!r}")

    async def names(self, ino: int) -> list[tuple[int, bytes]]:
        """(parent, name) of every entry that names the inode. Reads all entries: for messages and fsck."""
        return [(row[0], row[1]) for row in self._all("SELECT parent, name FROM dentry WHERE ino = ?", (ino,))]

    # ------------------------------------------------------------ extended attributes

    async def get_xattr(self, ino: int, name: bytes) -> bytes | None:
        row = self._one("SELECT value FROM xattr WHERE ino = ? AND name = ?", (ino, name))
        return row[0] if row else None

    async def set_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        self._run("INSERT INTO xattr VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = ?3 WHERE value <> ?3", (ino, name, value))

    async def list_xattrs(self, ino: int) -> list[bytes]:
        return [row[0] for row in self._all("SELECT name FROM xattr WHERE ino = ? ORDER BY name", (ino,))]

    async def remove_xattr(self, ino: int, name: bytes) -> bool:
        """Whether it was there."""
        return bool(self._run("DELETE FROM xattr WHERE ino = ? AND name = ?", (ino, name)))


def _update_statement(names: tuple[str, ...]) -> str:
    if not _SETTABLE.issuperset(names):
        raise TypeError(f"not columns that can be set: {sorted(set(names) - _SETTABLE)}")
    if not names:
        return ""
    setting = ", ".join(f"{name} = ?{at}" for at, name in enumerate(names, 2))
    differing = " OR ".join(f"{name} IS NOT ?{at}" for at, name in enumerate(names, 2))
    return f"UPDATE inode SET {setting} WHERE ino = ?1 AND ({differing})"
