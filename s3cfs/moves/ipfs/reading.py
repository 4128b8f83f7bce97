"""A file or a symlink becomes blocks. What it is may change at any moment: each file is opened once for each time that it is read."""
from __future__ import annotations

import os
import stat
from collections.abc import Callable

from s3cfs.backends.ipfs.cid import DAG_PB, Cid
from s3cfs.backends.ipfs.dag import Block, Builder, Form, Root
from s3cfs.backends.ipfs.directory import Put, symlink
from s3cfs.limits import MIB
from s3cfs.moves.ipfs.tree import refusing

AGAIN = 2                          # times that a file is read once more when it changed meanwhile,
AGAIN_BYTES = 64 * MIB             # if it is no larger


class Reading:
    """Thread-safe where `put` and `moved` are. `moved`: so many bytes more were read; fewer, when a file is read again."""

    def __init__(self, form: Form, put: Put, moved: Callable[[int], None]) -> None:
        self._form, self._put, self._moved = form, put, moved

    def symlink(self, path: str) -> tuple[Root, bool] | None:
        """As `file`."""
        try:
            with refusing(path):
                target = os.readlink(path)
        except FileNotFoundError:
            return None
        return symlink(target, self._form, self._put), True

    def file(self, path: str) -> tuple[Root, bool] | None:
        """And whether that is what the file was at one moment. None: it is no file any more."""
        left = AGAIN
        while (found := self._read(path)) is not None:
            root, same = found
            if same or not left or root.size > AGAIN_BYTES:
                break
            left -= 1
            self._moved(-root.size)
        return found

    def _read(self, path: str) -> tuple[Root, bool] | None:
        """As much as there is at the beginning."""
        try:
            with refusing(path):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
        except FileNotFoundError:
            return None
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                return None
            root = self._blocks(path, fd, before.st_size)
            return root, root.size == before.st_size and _state(os.fstat(fd)) == _state(before)
        finally:
            os.close(fd)

    def _blocks(self, path: str, fd: int, size: int) -> Root:
        """Of the file's first `size` bytes, or fewer where it ends before."""
        builder = Builder(self._form)
        for at in range(0, size or 1, self._form.leaf_bytes):
            wanted = min(self._form.leaf_bytes, size - at)
            with refusing(path):
                data = _pread(fd, wanted, at)
            if data or not at:
                block, leaf = self._form.leaf(data)
                self._put(leaf.cid, block.data)
                self._nodes(builder.add(leaf))
                self._moved(len(data))
            if len(data) < wanted:
                break
        blocks, root = builder.finish()
        self._nodes(blocks)
        return root

    def _nodes(self, blocks: list[Block]) -> None:
        for block in blocks:
            self._put(Cid(self._form.version, DAG_PB, block.digest), block.data)


def _pread(fd: int, size: int, at: int) -> bytes:
    """Fewer bytes only where the file ends."""
    data = os.pread(fd, size, at)
    while len(data) < size and (more := os.pread(fd, size - len(data), at + len(data))):
        data += more
    return data


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
