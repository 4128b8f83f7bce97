"""Handlers without a kernel: what two of them do to one another."""
from __future__ import annotations

import errno
import inspect
import logging
from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import pytest
import trio
import trio.testing

from s3cfs import errors
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


class Broken:
    """A Vfs with a bug wherever it is asked."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def raises(*args: object) -> Any:
            raise self.error
        return raises


HANDLERS = sorted(name for name, method in vars(Handlers).items()
                  if inspect.iscoroutinefunction(inspect.unwrap(method)) and not name.startswith("_") and name != "forget")


def answer_to(name: str, error: Exception) -> int:
    """The errno that a handler answers when the Vfs raises this."""
    handlers = Handlers(cast(Vfs, Broken(error)), FuseOptions("mem://"))
    handlers._directories[1] = 1
    fields = SimpleNamespace(update_size=True, **dict.fromkeys(("update_mode", "update_uid", "update_gid", "update_atime", "update_mtime",
                                                                "update_ctime"), False))
    known: dict[str, Any] = {"attr": SimpleNamespace(st_size=7), "fields": fields, "ctx": SimpleNamespace(uid=0, gid=0, pid=0, umask=0),
                             "name": b"name", "buf": b"data", "token": None}
    method = getattr(handlers, name)
    arguments = [known.get(each, 1) for each in inspect.signature(inspect.unwrap(method)).parameters if each != "self"]
    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(method, *arguments)
    assert handlers.waiting.count == 0
    return caught.value.errno


@pytest.mark.parametrize("name", HANDLERS)
def test_a_bug_is_an_error_of_one_call_and_a_traceback_in_the_log(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that leaves a handler would end the mount."""
    with caplog.at_level(logging.ERROR):
        assert answer_to(name, ZeroDivisionError("a bug")) == errno.EIO
    assert "ZeroDivisionError: a bug" in caplog.text and f"op={name}" in caplog.text
    assert answer_to(name, ExceptionGroup("of a nursery", [errors.ReadOnly("deposed")])) == errno.EROFS


def test_a_bug_in_forget_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    trio.run(Handlers(cast(Vfs, Broken(ZeroDivisionError("a bug"))), FuseOptions("mem://")).forget, [(7, 1)])
    assert "ZeroDivisionError: a bug" in caplog.text
