"""A store in a local folder: `local:///path`. One object is one file, named by its key.

A put writes a file under `.tmp/`, fsyncs it, and gives it its name by rename(2), or by link(2) when the key must be free:
both are atomic, and link fails when the name is taken. Then the folder is fsynced, and every folder made on the way in its own
parent: after `put` returned, the object outlives a power cut. Writing into place was rejected (a reader would see half of it),
O_TMPFILE too (NFS and others have none).
The root itself is made by mkfs only: a mount whose disk is not there must say so and not start an empty store.
"""
from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from typing import ClassVar

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.probe import probe
from s3cfs.backends.progress import moved
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import BucketMissing, ConfigError, Denied, Exists, NotFound, StoreError, StoreFull, Temporary, Unsupported

TEMPORARY = ".tmp"
LEFTOVER_AGE_S = 86400.0       # a temporary file older than this belongs to nobody any more
_PIECE_BYTES = 4 << 20         # one write(2): a disk on the net may be slow


class LocalBackend(Backend):
    """Objects as files below `root`."""

    OPTIONS: ClassVar[Mapping[str, str]] = {"create": "make the folder if it is missing (mkfs does)"}

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)
        self._temporary = os.path.join(self._root, TEMPORARY)
        self._create_only: bool | None = None

    @classmethod
    def from_url(cls, url: StoreUrl, options: Options, credentials: Credentials) -> Backend:
        if url.host or not url.path:
            raise ConfigError(f"{url}: a local store is local:///ABSOLUTE/PATH, with three slashes")
        backend = cls(url.path)
        if options.flag("create"):
            backend.create()
        return backend

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=self._create_only, linearizable=True)

    @property
    def location(self) -> str:
        return f"local://{self._root}"

    def create(self) -> None:
        """Only the folder itself: one that is missing above it is a disk that is not mounted, or a slip of the pen."""
        parent = os.path.dirname(self._root)
        if not os.path.isdir(parent):
            raise BucketMissing("create", "", f"there is no folder {parent}: is its disk mounted, is the path right?")
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._root, 0o700)
            if not os.path.isdir(self._root):
                raise BucketMissing("create", "", f"{self._root} is not a folder")
            self._sync_folder(parent)
        except OSError as error:
            raise self._translate(error, "create", "") from error

    def check(self) -> None:
        if not os.path.isdir(self._root):
            raise self._missing("check", "")
        try:
            os.listdir(self._root)
            self._sweep()
        except OSError as error:
            raise self._translate(error, "check", "") from error

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        try:
            with open(self._path(key), "rb", buffering=0) as file:
                there = os.fstat(file.fileno())
                if stat.S_ISDIR(there.st_mode):
                    raise NotFound("get", key, "no such object")
                wanted = max(0, there.st_size - offset)
                wanted = wanted if size is None else min(wanted, size)
                pieces = []
                while wanted:
                    piece = os.pread(file.fileno(), min(wanted, _PIECE_BYTES), offset)
                    if not piece:
                        break          # somebody truncates our files: the caller's seals notice
                    pieces.append(piece)
                    moved()
                    offset, wanted = offset + len(piece), wanted - len(piece)
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except OSError as error:
            raise self._translate(error, "get", key) from error

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        if only_if_absent and self._create_only is False:
            raise Unsupported("put", key, "this folder has no create-only put (no hard links)")
        self._put(key, data, only_if_absent)

    def _put(self, key: str, data: Body, only_if_absent: bool) -> None:
        path = self._path(key)
        written = ""
        try:
            written = self._write(data)
            self._make_folder(os.path.dirname(path))
            if only_if_absent:
                os.link(written, path)
            else:
                os.rename(written, path)
                written = ""
            self._sync_folder(os.path.dirname(path))
        except OSError as error:
            if only_if_absent and error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
                raise Unsupported("put", key, "this folder has no create-only put (no hard links)") from error
            raise self._translate(error, "put", key) from error
        finally:
            if written:
                with contextlib.suppress(OSError):
                    os.unlink(written)

    def stat(self, key: str) -> ObjectInfo:
        try:
            there = os.stat(self._path(key))
        except OSError as error:
            raise self._translate(error, "stat", key) from error
        if stat.S_ISDIR(there.st_mode):
            raise NotFound("stat", key, "no such object")
        return ObjectInfo(key, there.st_size)

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            os.unlink(path)
            self._sync_folder(os.path.dirname(path))
        except OSError as error:
            if error.errno in (errno.EISDIR, errno.EPERM) and os.path.isdir(path):
                return                 # a folder of keys, not a key
            failure = self._translate(error, "delete", key)
            if not isinstance(failure, NotFound):
                raise failure from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        return self._walk(prefix, self._path(prefix.rstrip("/")) if prefix else self._root)

    def folders(self, prefix: str) -> Iterator[str]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            failure = self._translate(error, "list", prefix)
            if not isinstance(failure, NotFound):
                raise failure from error
            return
        for name in names:
            if (prefix or name != TEMPORARY) and any(True for _ in self._walk(f"{prefix}{name}/", os.path.join(folder, name))):
                yield name                                   # folders outlive their objects here

    def _walk(self, prefix: str, folder: str) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if folder == self._root and entry.name == TEMPORARY:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._walk(f"{prefix}{entry.name}/", entry.path)
                        continue
                    with contextlib.suppress(FileNotFoundError):       # deleted while we looked
                        yield ObjectInfo(prefix + entry.name, entry.stat().st_size)
        except OSError as error:
            failure = self._translate(error, "list", prefix)
            if not isinstance(failure, NotFound):
                raise failure from error

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        self._create_only = probe(lambda key, data: self._put(key, data, True), self.get, self.delete, secrets.token_hex(8), rounds)
        return self._create_only

    def assume_create_only(self, holds: bool) -> None:
        self._create_only = holds

    # ------------------------------------------------------------ files and folders

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or parts[0] == TEMPORARY or "\0" in key:
            raise ValueError(f"not a key: {key!r}")
        return os.path.join(self._root, *parts)

    def _write(self, data: Body) -> str:
        """A new temporary file with these bytes on disk."""
        path = os.path.join(self._temporary, f"{os.getpid()}-{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._temporary, 0o700)
            fd = os.open(path, flags, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view[:_PIECE_BYTES]):]
                moved()
            os.fsync(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        finally:
            os.close(fd)
        return path

    def _make_folder(self, folder: str) -> None:
        """Make what is missing of it, each durable in its parent; the root must be there."""
        if os.path.isdir(folder):
            return
        if folder == self._root:
            raise FileNotFoundError(errno.ENOENT, "the store's folder is missing", folder)
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        self._sync_folder(parent)

    @staticmethod
    def _sync_folder(folder: str) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Remove what killed writers left in `.tmp/`. Ages by the clock of the folder's own system: a new file's mtime is now."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            names = os.listdir(self._temporary)
            if not names:
                return
            mark = self._write(b"")
            try:
                now = os.stat(mark).st_mtime
                for name in names:
                    path = os.path.join(self._temporary, name)
                    with contextlib.suppress(FileNotFoundError):
                        if now - os.stat(path).st_mtime > LEFTOVER_AGE_S:
                            os.unlink(path)
            finally:
                os.unlink(mark)

    def _missing(self, operation: str, key: str) -> StoreError:
        return BucketMissing(operation, key, f"there is no folder {self._root}: is its disk mounted, is the path right?")

    def _translate(self, error: OSError, operation: str, key: str) -> StoreError:
        code, text = error.errno, error.strerror or str(error)
        if code in (errno.ENOENT, errno.ENOTDIR):
            if not os.path.isdir(self._root):
                return self._missing(operation, key)
            if operation in ("get", "stat", "delete", "list"):
                return NotFound(operation, key, "no such object")
            if code == errno.ENOTDIR:
                return Unsupported(operation, key, "a key cannot be an object and a folder of others in a local store")
        if code == errno.EEXIST:
            return Exists(operation, key, "the key is taken")
        if code == errno.EISDIR:
            return NotFound(operation, key, "no such object") if operation == "get" else Unsupported(operation, key, text)
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return StoreFull(operation, key, f"the disk of {self._root} takes no more ({text})")
        if code in (errno.EACCES, errno.EPERM, errno.EROFS):
            return Denied(operation, key, f"{text} in {self._root}: the user of this process needs read and write permission there")
        if code in (errno.ENAMETOOLONG, errno.ELOOP):
            return Unsupported(operation, key, text)
        return Temporary(operation, key, text)
