"""A disk in memory that remembers what was synced, and forgets the rest when the machine dies.

What is relied on (cited by the checks):
  D1  After `fsync` returned, what the file held at its call survives everything but the loss of the disk.
  D2  After `sync_dir` returned, the names made, changed or removed in that folder before survive.
  D3  A sector of 512 bytes is written whole or not at all, and a write changes no byte beside its own.
Everything else may happen: of what was not synced each write survives whole, not at all, or in some of its sectors, later ones
without earlier ones; names survive in the order they were made (as a journalling filesystem does it) or one without the other; a
rename is atomic.
After a failed fsync what was to be written is lost or not, the next fsync of that file says nothing about it (as Linux does it).
"""
from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass

from .crash import Incarnation
from .faults import NEVER, DiskFaults

SECTOR = 512
STYLES = ("none", "all", "prefix", "writes", "sectors")


class FileNode:
    """A file's bytes: `data` as read now, `durable` as after a power cut without luck, and the steps between the two."""

    __slots__ = ("data", "durable", "pending")

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = bytearray(data)
        self.pending: list[tuple[int, bytes | None]] = []     # (offset, bytes) or (size, None) for a truncation

    def write(self, offset: int, data: bytes) -> None:
        apply(self.data, offset, data)
        self.pending.append((offset, data))

    def truncate(self, size: int) -> None:
        apply(self.data, size, None)
        self.pending.append((size, None))

    def settle(self) -> None:
        for offset, data in self.pending:
            apply(self.durable, offset, data)
        self.pending = []

    def lose(self, rng: random.Random, style: str) -> None:
        """What of the pending reaches the platter when nobody waits for it; `durable` is then what is there."""
        chance = rng.random()
        steps = self.pending if style != "prefix" else self.pending[: rng.randint(0, len(self.pending))]
        for offset, data in steps:
            if style in ("all", "prefix") or (style == "writes" and rng.random() < chance):
                apply(self.durable, offset, data)
            elif style == "sectors":
                if data is None:
                    if rng.random() < chance:
                        apply(self.durable, offset, None)
                    continue
                start = 0
                while start < len(data):
                    end = min(len(data), ((offset + start) // SECTOR + 1) * SECTOR - offset)
                    if rng.random() < chance:
                        apply(self.durable, offset + start, data[start:end])
                    start = end
        self.pending = []

    def copy(self) -> FileNode:
        new = FileNode()
        new.data, new.durable, new.pending = bytearray(self.data), bytearray(self.durable), list(self.pending)
        return new


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """One write, or a truncation to `offset` when there is no data. Gaps are zeros."""
    if data is None:
        if offset <= len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset:offset + len(data)] = data


class Folder:
    __slots__ = ()


FOLDER = Folder()
Entry = FileNode | Folder


@dataclass(frozen=True, slots=True)
class NameStep:
    """`new` gets what `entry` is; None: `old` is removed. A rename has both."""

    entry: Entry | None
    new: str | None
    old: str | None

    def names(self) -> Iterable[str]:
        return [name for name in (self.new, self.old) if name is not None]

    def apply(self, names: dict[str, Entry]) -> None:
        if self.old is not None and self.new is not None and names.get(self.old) is not self.entry:
            return                                            # what was to be renamed never came to be
        if self.old is not None:
            names.pop(self.old, None)
        if self.new is not None and self.entry is not None:
            names[self.new] = self.entry


def parent(path: str) -> str:
    return path.rpartition("/")[0]


class SimDrive:
    """The medium: outlives processes and, as far as it was synced, power cuts."""

    def __init__(self, faults: DiskFaults | None = None) -> None:
        self.names: dict[str, Entry] = {}
        self.durable: dict[str, Entry] = {}
        self.steps: list[NameStep] = []
        self.faults = faults or DiskFaults()

    def change(self, step: NameStep) -> None:
        step.apply(self.names)
        self.steps.append(step)

    def settle_names(self, folder: str) -> None:
        """The steps in this folder, and whatever earlier ones they build on."""
        wanted: set[str] = set()
        chosen = []
        kept = []
        for step in reversed(self.steps):
            if any(parent(name) == folder or name in wanted for name in step.names()):
                wanted.update(step.names())
                chosen.append(step)
            else:
                kept.append(step)
        for step in reversed(chosen):
            step.apply(self.durable)
        self.steps = kept[::-1]

    def used_bytes(self) -> int:
        return sum(len(entry.data) for entry in self.names.values() if isinstance(entry, FileNode))

    def power_cut(self, rng: random.Random) -> str:
        """Only what was synced is certain. Returns a word on what became of the rest."""
        style = rng.choice((*STYLES, "mixed", "mixed"))
        chance = rng.random()
        steps = self.steps
        if style == "none":
            steps = []
        elif style != "all":
            if rng.random() < 0.6:
                steps = steps[: rng.randint(0, len(steps))]
            else:
                steps = [step for step in steps if rng.random() < chance]
        for step in steps:
            step.apply(self.durable)
        nodes = [entry for _, entry in sorted(self.durable.items()) if isinstance(entry, FileNode)]
        for node in nodes:
            node.lose(rng, rng.choice(STYLES) if style == "mixed" else style)
        fresh = {id(node): FileNode(bytes(node.durable)) for node in nodes}
        names: dict[str, Entry] = {}
        for path in sorted(self.durable):                     # a name without its folder is nowhere
            entry = self.durable[path]
            if parent(path) == "" or isinstance(names.get(parent(path)), Folder):
                names[path] = fresh[id(entry)] if isinstance(entry, FileNode) else entry
        self.names, self.durable, self.steps = names, dict(names), []
        return style

    def copy(self) -> SimDrive:
        """An equal drive that can go another way; what is not synced is still not."""
        new = SimDrive(DiskFaults())
        made: dict[int, Entry] = {}

        def of(entry: Entry | None) -> Entry | None:
            if not isinstance(entry, FileNode):
                return entry
            if id(entry) not in made:
                made[id(entry)] = entry.copy()
            return made[id(entry)]

        new.names = {path: e for path, entry in self.names.items() if (e := of(entry)) is not None}
        new.durable = {path: e for path, entry in self.durable.items() if (e := of(entry)) is not None}
        new.steps = [NameStep(of(step.entry), step.new, step.old) for step in self.steps]
        return new


class SimFile:
    """`doors.DiskFile` in one life."""

    def __init__(self, disk: SimDisk, node: FileNode, path: str) -> None:
        self._disk, self._node, self.path = disk, node, path
        self._closed = False

    def _use(self) -> FileNode:
        self._disk.incarnation.alive()
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)
        return self._node

    def pread(self, size: int, offset: int) -> bytes:
        node = self._use()
        self._disk.trouble("read", self.path)
        return bytes(node.data[offset:offset + size])

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        node = self._use()
        self._disk.incarnation.point("write", self.path)
        data = bytes(data)
        self._disk.trouble("write", self.path)
        self._disk.room(offset + len(data) - len(node.data), self.path)
        node.write(offset, data)

    def truncate(self, size: int) -> None:
        node = self._use()
        self._disk.incarnation.point("write", self.path)
        self._disk.trouble("truncate", self.path)
        self._disk.room(size - len(node.data), self.path)
        node.truncate(size)

    def fsync(self) -> None:
        node = self._use()
        self._disk.sync_node(node, self.path)

    def size(self) -> int:
        return len(self._use().data)

    def close(self) -> None:
        self._closed = True


class SimDisk:
    """`doors.Disk` in one life on a drive. `real_path` and `sqlite_vfs` are given by `sqlitevfs.attach`."""

    def __init__(self, incarnation: Incarnation, drive: SimDrive, sqlite_root: str = "", sqlite_vfs: str | None = None) -> None:
        self.incarnation, self.drive = incarnation, drive
        self._sqlite_root, self._sqlite_vfs = sqlite_root, sqlite_vfs
        self.fsyncs = 0

    @property
    def sqlite_vfs(self) -> str | None:
        return self._sqlite_vfs

    def real_path(self, path: str) -> str:
        return f"{self._sqlite_root}/{path}"

    def _fail(self, code: int, path: str) -> OSError:
        return OSError(code, os.strerror(code), path)

    def trouble(self, call: str, path: str) -> None:
        """Fails when it is time to."""
        if code := self.drive.faults.check(call):
            self.incarnation.note("fault", f"{errno.errorcode[code]} of {call} {path}")
            raise self._fail(code, path)

    def room(self, more: int, path: str) -> None:
        faults = self.drive.faults
        if more > 0 and faults.room_bytes < NEVER and self.drive.used_bytes() + more > faults.room_bytes:
            faults.fired += 1
            self.incarnation.note("fault", f"full: {path}")
            raise self._fail(errno.ENOSPC, path)

    def sync_node(self, node: FileNode, path: str, call: str = "fsync") -> None:
        self.incarnation.point("sync", f"before fsync {path}")
        self.fsyncs += 1
        try:
            self.trouble(call, path)
        except OSError:
            faults = self.drive.faults
            node.lose(faults.rng, faults.rng.choice(STYLES))
            if faults.forgets:
                node.data[:] = node.durable
            raise
        node.settle()
        self.incarnation.point("sync", f"after fsync {path}")

    def lookup(self, path: str) -> Entry | None:
        self.incarnation.alive()
        return FOLDER if path == "" else self.drive.names.get(path)

    def _folder(self, path: str) -> None:
        found = self.lookup(path)
        if not isinstance(found, Folder):
            raise self._fail(errno.ENOENT if found is None else errno.ENOTDIR, path)

    def open_node(self, path: str, *, create: bool, empty: bool, call: str = "open") -> FileNode:
        self._folder(parent(path))
        self.trouble(call, path)
        found = self.lookup(path)
        if isinstance(found, Folder):
            raise self._fail(errno.EISDIR, path)
        if found is None:
            if not create:
                raise self._fail(errno.ENOENT, path)
            self.incarnation.point("write", f"create {path}")
            self.trouble("db_create" if call == "db_open" else "create", path)
            found = FileNode()
            self.drive.change(NameStep(found, path, None))
        elif empty and found.data:
            self.incarnation.point("write", f"empty {path}")
            found.truncate(0)
        return found

    def open(self, path: str, *, create: bool = False) -> SimFile:
        return SimFile(self, self.open_node(path, create=create, empty=create), path)

    def rename(self, old: str, new: str) -> None:
        self._folder(parent(new))
        entry = self.lookup(old)
        if entry is None:
            raise self._fail(errno.ENOENT, old)
        if isinstance(entry, Folder) or isinstance(self.lookup(new), Folder):
            raise self._fail(errno.EISDIR, new)               # folders are not renamed here
        self.incarnation.point("write", f"rename {old} {new}")
        self.trouble("rename", old)
        if old != new:
            self.drive.change(NameStep(entry, new, old))

    def unlink(self, path: str, call: str = "unlink") -> None:
        entry = self.lookup(path)
        if isinstance(entry, Folder):
            raise self._fail(errno.EISDIR, path)
        if entry is not None:
            self.incarnation.point("write", f"unlink {path}")
            self.trouble(call, path)
            self.drive.change(NameStep(None, None, path))

    def exists(self, path: str) -> bool:
        return self.lookup(path) is not None

    def size(self, path: str) -> int:
        entry = self.lookup(path)
        self.trouble("size", path)
        if entry is None:
            raise self._fail(errno.ENOENT, path)
        return len(entry.data) if isinstance(entry, FileNode) else 0

    def listdir(self, path: str) -> list[str]:
        self._folder(path)
        self.trouble("listdir", path)
        return sorted(name.rpartition("/")[2] for name in self.drive.names if parent(name) == path and name)

    def makedirs(self, path: str) -> None:
        parts = path.strip("/").split("/") if path.strip("/") else []
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            found = self.lookup(name)
            if isinstance(found, FileNode):
                raise self._fail(errno.EEXIST, name)
            if found is None:
                self.incarnation.point("write", f"mkdir {name}")
                self.trouble("makedirs", name)
                self.drive.change(NameStep(FOLDER, name, None))

    def sync_dir(self, path: str) -> None:
        self._folder(path)
        self.incarnation.point("sync", f"before sync_dir {path}")
        self.fsyncs += 1
        self.trouble("sync_dir", path)
        self.drive.settle_names(path)
        self.incarnation.point("sync", f"after sync_dir {path}")

    def blocks_read(self) -> int:
        return 0

    def free_bytes(self) -> int:
        self.incarnation.alive()
        return max(0, self.drive.faults.room_bytes - self.drive.used_bytes())
