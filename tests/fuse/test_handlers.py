"""Handlers without a kernel: what two of them do to one another."""
from __future__ import annotations

from typing import cast

import pyfuse3
import pytest
import trio
import trio.testing

from s3cfs.fuse.handlers import CAPABILITY, Handlers
from s3cfs.fuse.options import FuseOptions
from s3cfs.vfs.core import Caller, Vfs
from tests.fuse.memvfs import MemVfs


class WaitingVfs(MemVfs):
    """setxattr waits first, as while a transaction closes."""

    def __init__(self) -> None:
        super().__init__()
        self.go = trio.Event()

    async def setxattr(self, ino: int, name: bytes, value: bytes, flags: int) -> None:
        await self.go.wait()
        await super().setxattr(ino, name, value, flags)


def test_a_new_capability_is_seen() -> None:
    async def main() -> bytes:
        vfs = WaitingVfs()
        handlers, ctx = Handlers(cast(Vfs, vfs), FuseOptions("mem://")), cast(pyfuse3.RequestContext, None)
        ino = (await vfs.create(1, b"program", 0o755, Caller(0, 0), 0)).ino
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handlers.setxattr, ino, CAPABILITY, b"capability", ctx)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(pyfuse3.FUSEError):
                await handlers.getxattr(ino, CAPABILITY, ctx)       # somebody looks or writes meanwhile: there is none yet
            vfs.go.set()
        return await handlers.getxattr(ino, CAPABILITY, ctx)

    assert trio.run(main) == b"capability"
