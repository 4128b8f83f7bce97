"""What a filesystem is, as plainly as it can be said: a tree of values, and each operation a function of it.

Nodes are never changed, only replaced, so a snapshot of the state after an operation is a copy of one dictionary. An operation
either raises the FsError that the real one must raise, or changes the state and returns the inodes it *touched*: their times
(and nothing else of them) are then taken over from the real filesystem by `observe`, which checks all the rest.

A regular file has *versions*. The last one is what a read sees. Those before it are what a crash may leave as long as nothing
put the file in order with everything else: see docs/invariants.md, I2. `barrier` does, on last close, fsync, flush and when the
file takes another's name.
"""
from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from s3cfs.errors import (
    DirectoryNotEmpty,
    EntryExists,
    FsError,
    InvalidArgument,
    IsADirectory,
    NoAttribute,
    NoSuchEntry,
    NotADirectory,
    NotPermitted,
)

NOREPLACE, EXCHANGE = 1, 2
UNKNOWN = -1            # the time of a version that `observe` has not seen yet


class Attributes(Protocol):
    """What `observe` looks at: an Inode of s3cfs.meta, or anything like it."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Version:
    data: bytes = b""
    mtime: int = 0
    ctime: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One inode. Times of a regular file are in its versions."""

    ino: int
    mode: int
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    mtime: int = 0
    ctime: int = 0
    target: bytes | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    entries: dict[bytes, int] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def data(self) -> bytes:
        return self.versions[-1].data


Nodes = dict[int, Node]


class Model:
    """The state now. `spent`: inode numbers that may not be given out again."""

    def __init__(self, root: int, nodes: Nodes, spent: set[int] | None = None) -> None:
        self.root, self.nodes = root, dict(nodes)
        self.opens: dict[int, int] = {}
        self.spent = set(spent or ()) | set(nodes)
        self._fixed: dict[int, int] = {}          # mtimes that were asked for

    def copy(self) -> Model:
        new = Model(self.root, self.nodes, self.spent)
        new.opens = dict(self.opens)
        return new

    def refuses(self, operation: str, *arguments: object) -> type[FsError] | None:
        """The error that this operation must raise."""
        try:
            self.copy().run(operation, *arguments, ino=-1)
        except FsError as error:
            return type(error)
        return None

    def run(self, operation: str, *arguments: object, ino: int | None = None) -> list[int]:
        """Do it; `ino` is the number that a new inode got. Returns what was touched."""
        method: Callable[..., list[int]] = getattr(self, operation)
        return method(*arguments, ino=ino) if operation in MAKERS else method(*arguments)

    # ------------------------------------------------------------ small steps

    def _folder(self, ino: int) -> Node:
        node = self.nodes.get(ino)
        if node is None or not node.nlink:
            raise NoSuchEntry(str(ino))
        if not node.is_dir:
            raise NotADirectory(str(ino))
        return node

    def _entry(self, parent: int, name: bytes) -> Node:
        found = self._folder(parent).entries.get(name)
        if found is None:
            raise NoSuchEntry(repr(name))
        return self.nodes[found]

    def _set(self, ino: int, **changes: object) -> None:
        self.nodes[ino] = replace(self.nodes[ino], **changes)  # type: ignore[arg-type]

    def _enter(self, parent: int, name: bytes, ino: int) -> None:
        self._set(parent, entries={**self.nodes[parent].entries, name: ino})

    def _leave(self, parent: int, name: bytes) -> None:
        self._set(parent, entries={key: value for key, value in self.nodes[parent].entries.items() if key != name})

    def _relink(self, ino: int, change: int) -> None:
        self._set(ino, nlink=self.nodes[ino].nlink + change)

    def _drop_name(self, node: Node) -> None:
        """A name of a node that is no directory is gone, or that of an empty directory."""
        self._set(node.ino, nlink=0 if node.is_dir else node.nlink - 1)
        self._forget(node.ino)

    def _forget(self, ino: int) -> None:
        if ino in self.nodes and not self.nodes[ino].nlink and not self.opens.get(ino):
            del self.nodes[ino]

    def _new(self, parent: int, name: bytes, node: Node) -> list[int]:
        if name in self._folder(parent).entries:
            raise EntryExists(repr(name))
        if node.ino in self.spent:
            raise AssertionError(f"I8: inode number {node.ino} was given out before")
        self.spent.add(node.ino)
        self.nodes[node.ino] = node
        self._enter(parent, name, node.ino)
        if node.is_dir:
            self._relink(parent, 1)
        return [parent, node.ino]

    # ------------------------------------------------------------ names

    def mkdir(self, parent: int, name: bytes, mode: int, ino: int) -> list[int]:
        return self._new(parent, name, Node(ino, stat.S_IFDIR | mode, nlink=2))

    def create(self, parent: int, name: bytes, mode: int, ino: int) -> list[int]:
        touched = self._new(parent, name, Node(ino, stat.S_IFREG | mode, versions=(Version(),)))
        self.opens[ino] = 1
        return touched

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ino: int) -> list[int]:
        versions = (Version(),) if stat.S_ISREG(mode) else ()
        return self._new(parent, name, Node(ino, mode, rdev=rdev, versions=versions))

    def symlink(self, parent: int, name: bytes, target: bytes, ino: int) -> list[int]:
        return self._new(parent, name, Node(ino, stat.S_IFLNK | 0o777, target=target))

    def link(self, ino: int, parent: int, name: bytes) -> list[int]:
        if name in self._folder(parent).entries:
            raise EntryExists(repr(name))
        if self.nodes[ino].is_dir:
            raise NotPermitted(str(ino))
        self._enter(parent, name, ino)
        self._relink(ino, 1)
        return [parent, ino]

    def unlink(self, parent: int, name: bytes) -> list[int]:
        node = self._entry(parent, name)
        if node.is_dir:
            raise IsADirectory(repr(name))
        self._leave(parent, name)
        self._drop_name(node)
        return [parent, node.ino]

    def rmdir(self, parent: int, name: bytes) -> list[int]:
        node = self._entry(parent, name)
        if not node.is_dir:
            raise NotADirectory(repr(name))
        if node.entries:
            raise DirectoryNotEmpty(repr(name))
        self._leave(parent, name)
        self._relink(parent, -1)
        self._drop_name(node)
        return [parent]

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> list[int]:
        source, found = self._entry(parent, name), self._folder(new_parent).entries.get(new_name)
        target = None if found is None else self.nodes[found]
        if target is not None and flags == NOREPLACE:
            raise EntryExists(repr(new_name))
        if target is None and flags == EXCHANGE:
            raise NoSuchEntry(repr(new_name))
        if parent != new_parent and self.is_below(new_parent, source.ino):
            raise InvalidArgument(repr(name))
        if target is not None and parent != new_parent and self.is_below(parent, target.ino):
            raise (InvalidArgument if flags == EXCHANGE else DirectoryNotEmpty)(repr(new_name))
        if target is not None and target.ino == source.ino:
            return []
        if target is not None and flags != EXCHANGE:
            if source.is_dir and not target.is_dir:
                raise NotADirectory(repr(new_name))
            if target.is_dir and not source.is_dir:
                raise IsADirectory(repr(new_name))
            if target.entries:
                raise DirectoryNotEmpty(repr(new_name))
        self._leave(parent, name)
        self._relink(parent, -int(source.is_dir))
        if target is not None:
            self._leave(new_parent, new_name)
            self._relink(new_parent, -int(target.is_dir))
        self._enter(new_parent, new_name, source.ino)
        self._relink(new_parent, int(source.is_dir))
        if target is None:
            return [parent, new_parent, source.ino]
        if flags == EXCHANGE:
            self._enter(parent, name, target.ino)
            self._relink(parent, int(target.is_dir))
        else:
            if source.is_file and target.is_file:
                self.barrier(source.ino)
            self._drop_name(target)
        return [parent, new_parent, source.ino, target.ino]

    def is_below(self, ino: int, above: int) -> bool:
        """Whether `ino` is `above` or lies in it."""
        if ino == above:
            return True
        node = self.nodes.get(above)
        return node is not None and node.is_dir and any(self.is_below(ino, child) for child in node.entries.values())

    # ------------------------------------------------------------ attributes

    def chmod(self, ino: int, mode: int) -> list[int]:
        self._set(ino, mode=stat.S_IFMT(self.nodes[ino].mode) | mode)
        return [ino]

    def utimens(self, ino: int, mtime_ns: int) -> list[int]:
        self._fixed[ino] = mtime_ns
        return [ino]

    def setxattr(self, ino: int, name: bytes, value: bytes) -> list[int]:
        self._set(ino, xattrs={**self.nodes[ino].xattrs, name: value})
        return [ino]

    def removexattr(self, ino: int, name: bytes) -> list[int]:
        if name not in self.nodes[ino].xattrs:
            raise NoAttribute(repr(name))
        self._set(ino, xattrs={key: value for key, value in self.nodes[ino].xattrs.items() if key != name})
        return [ino]

    # ------------------------------------------------------------ content

    def open(self, ino: int, truncate: bool) -> list[int]:
        self.opens[ino] = self.opens.get(ino, 0) + 1
        return self.truncate(ino, 0) if truncate else []

    def release(self, ino: int) -> list[int]:
        self.opens[ino] -= 1
        if not self.opens[ino]:
            del self.opens[ino]
            self.barrier(ino)
            self._forget(ino)
        return []

    def write(self, ino: int, offset: int, data: bytes) -> list[int]:
        old = self.nodes[ino].data
        self._change(ino, old[:offset].ljust(offset, b"\0") + data + old[offset + len(data):])
        return [ino]

    def truncate(self, ino: int, size: int) -> list[int]:
        self._change(ino, self.nodes[ino].data[:size].ljust(size, b"\0"))
        if not self.opens.get(ino):
            self.barrier(ino)
        return [ino]

    def _change(self, ino: int, data: bytes) -> None:
        versions = self.nodes[ino].versions
        self._set(ino, versions=(*versions, replace(versions[-1], data=data, mtime=UNKNOWN)))

    def barrier(self, ino: int) -> None:
        self._set(ino, versions=self.nodes[ino].versions[-1:])

    def fsync(self, ino: int) -> list[int]:
        if self.nodes[ino].is_file:
            self.barrier(ino)
        return []

    def fsyncdir(self, ino: int) -> list[int]:
        return []

    def flush_all(self) -> list[int]:
        for ino, node in list(self.nodes.items()):
            if len(node.versions) > 1:
                self.barrier(ino)
        return []

    # ------------------------------------------------------------ what the real one says

    def observe(self, seen: Attributes, *, back: bool = False) -> None:
        """Take over the times of a touched inode; everything else must be as here. `back`: the clock was turned back."""
        node = self.nodes[seen.ino]
        size = len(node.data) if node.is_file else seen.size
        ours = (node.mode, node.nlink, node.uid, node.gid, node.rdev, size)
        theirs = (seen.mode, seen.nlink, seen.uid, seen.gid, seen.rdev, seen.size)
        assert ours == theirs, f"inode {seen.ino}: (mode, nlink, uid, gid, rdev, size) is {theirs}, must be {ours}"
        fixed = self._fixed.pop(seen.ino, None)
        assert fixed in (None, seen.mtime_ns), f"inode {seen.ino}: mtime {seen.mtime_ns} was set to {fixed}"
        before = node.versions[-1].ctime if node.is_file else node.ctime
        assert back or seen.ctime_ns >= before, f"inode {seen.ino}: ctime went back from {before} to {seen.ctime_ns}"
        if not node.is_file:
            self._set(seen.ino, mtime=seen.mtime_ns, ctime=seen.ctime_ns)
            return
        last = replace(node.versions[-1], mtime=seen.mtime_ns, ctime=seen.ctime_ns)
        if len(node.versions) > 1 and node.versions[-1].mtime != UNKNOWN:
            self._set(seen.ino, versions=(*node.versions, last))        # attributes of a file with changes pending
        else:
            self._set(seen.ino, versions=(*node.versions[:-1], last))


MAKERS = frozenset(("mkdir", "create", "mknod", "symlink"))
