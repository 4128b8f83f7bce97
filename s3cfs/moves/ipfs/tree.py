"""A tree of files, walked as `ipfs add -r` does: symlinks are not followed, names that begin with '.' are left out unless asked for."""
from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from s3cfs.backends.ipfs.directory import Directory
from s3cfs.errors import SystemFailure


class Kind(Enum):
    FILE = "file"
    SYMLINK = "symlink"
    FOLDER = "folder"
    FIFO = "fifo"
    SOCKET = "socket"
    DEVICE = "device"
    GONE = "gone"                  # nothing has that name any more


@dataclass(slots=True, eq=False)
class Folder:
    """One that is under way. `above` None: the top."""

    path: str
    name: str
    above: Folder | None
    made: Directory = field(default_factory=Directory)


@dataclass(frozen=True, slots=True)
class Step:
    """Something in `folder`. Where `kind` is FOLDER it is `folder` itself, and all that is in it came before."""

    kind: Kind
    name: str
    folder: Folder

    @property
    def path(self) -> str:
        return self.folder.path if self.kind is Kind.FOLDER else os.path.join(self.folder.path, self.name)


class Walk:
    """Of the folder `path` and all below it, by name. What cannot be read ends it with SystemFailure."""

    def __init__(self, path: str, *, with_hidden: bool) -> None:
        self._path, self._with_hidden = path, with_hidden
        self.hidden = 0                                # names that were left out

    def __iter__(self) -> Iterator[Step]:
        try:
            stack = [(Folder(self._path, "", None), iter(self._names(self._path)))]
        except FileNotFoundError:
            raise SystemFailure(f"{self._path}: there is no such folder") from None
        while stack:
            folder, names = stack[-1]
            for name in names:
                path = os.path.join(folder.path, name)
                kind, _ = look(path)
                if kind is not Kind.FOLDER:
                    yield Step(kind, name, folder)
                    continue
                try:
                    below = iter(self._names(path))
                except FileNotFoundError:
                    yield Step(Kind.GONE, name, folder)
                    continue
                stack.append((Folder(path, name, folder), below))
                break
            else:
                stack.pop()
                yield Step(Kind.FOLDER, folder.name, folder)

    def _names(self, path: str) -> list[str]:
        with refusing(path):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                names = os.listdir(fd)
            finally:
                os.close(fd)
        if not self._with_hidden:
            shown = [name for name in names if not name.startswith(".")]
            self.hidden += len(names) - len(shown)
            names = shown
        names.sort(key=os.fsencode)
        return names


def look(path: str) -> tuple[Kind, int]:
    """What it is, and its size in bytes."""
    try:
        with refusing(path):
            found = os.lstat(path)
    except FileNotFoundError:
        return Kind.GONE, 0
    for is_one, kind in ((stat.S_ISREG, Kind.FILE), (stat.S_ISDIR, Kind.FOLDER), (stat.S_ISLNK, Kind.SYMLINK), (stat.S_ISFIFO, Kind.FIFO),
                         (stat.S_ISSOCK, Kind.SOCKET)):
        if is_one(found.st_mode):
            return kind, found.st_size
    return Kind.DEVICE, 0


@contextlib.contextmanager
def refusing(path: str) -> Iterator[None]:
    """Where the system refuses something: SystemFailure, which names the file. FileNotFoundError: it is not there, or something else is."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
            raise FileNotFoundError from None
        raise SystemFailure(f"{path}: {error.strerror}") from None
