"""A daemon that mounts MemVfs, made of the parts that s3cfs makes its own of.

    python -m tests.fuse.memmount MNT SOCKET [--options JSON] [--log FILE] [--fg]

Its control socket answers: asked (how often the Vfs was called), load (starts tasks beside the requests), late (how late they
were), slow (fsync waits until told), full (so do writes and who needs room), withdraw (the loop is told of a request that is gone
when it reads), pid. In the foreground it writes the line "mounted" when it is.
"""
from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast

import trio

from s3cfs import control
from s3cfs.errors import S3cfsError
from s3cfs.fuse import lifecycle
from s3cfs.fuse.options import FuseOptions
from s3cfs.fuse.session import Leaving, Mounted, serve
from s3cfs.vfs.content import Kind
from s3cfs.vfs.core import Vfs
from tests.fuse.memvfs import MemVfs


class SlowVfs(MemVfs):
    """fsync waits until somebody says go; when it is full, so do writes, once they are done, and whatever needs room."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.room = trio.Event(), trio.Event()
        self.go.set()
        self.room.set()

    async def fsync(self, ino: int) -> None:
        await super().fsync(ino)
        await self.go.wait()

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        written = await super().write(ino, offset, data)
        await self.room.wait()
        return written

    def would_wait(self, kind: Kind) -> bool:
        return not self.room.is_set()

    async def enter(self, kind: Kind) -> None:
        self.asked["enter"] = self.asked.get("enter", 0) + 1
        await self.room.wait()


class Withdrawn:
    """What a client does that is killed between the loop's poll and its read: /dev/fuse was readable, and holds nothing any more."""

    def __init__(self) -> None:
        self._now = trio.Event()
        self._wait_readable = trio.lowlevel.wait_readable
        trio.lowlevel.wait_readable = self.wait_readable

    async def wait_readable(self, fd: Any) -> None:
        async def until_readable() -> None:
            await self._wait_readable(fd)
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_readable)
                await self._now.wait()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise lifecycle.only_cause(group) from None

    def one(self) -> None:
        self._now.set()
        self._now = trio.Event()


class Probes:
    """Other tasks that a filesystem has: how late they come, in seconds."""

    def __init__(self) -> None:
        self.timers: list[float] = []
        self.held: list[float] = []          # CPU of this thread while a timer of 1 ms was due or sleeping
        self.echoes: list[float] = []
        self.hops: list[float] = []

    async def timer(self) -> None:
        while True:
            due, used = trio.current_time() + 0.001, time.thread_time()
            await trio.sleep_until(due)
            self.timers.append(trio.current_time() - due)
            self.held.append(time.thread_time() - used)

    async def echo(self) -> None:
        near, far = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        while True:
            began = trio.current_time()
            await near.send_all(b"x")
            await far.receive_some(1)
            self.echoes.append(trio.current_time() - began)
            await trio.sleep(0.002)

    async def hop(self) -> None:
        while True:
            began = trio.current_time()
            await trio.to_thread.run_sync(lambda: None)
            self.hops.append(trio.current_time() - began)
            await trio.sleep(0.002)

    async def busy(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    def summary(self) -> dict[str, list[float]]:
        """Count, median, 99 % and worst of each; times in ms."""
        result = {}
        for name in ("timers", "held", "echoes", "hops"):
            values = sorted(getattr(self, name))
            result[name] = [len(values), *(1000 * values[int(share * (len(values) - 1))] for share in (0.5, 0.99, 1.0))] if values else []
        return result


async def run(mnt: str, socket_path: str, options: FuseOptions, report: lifecycle.Report, foreground: bool) -> None:
    vfs, leaving, probes, withdrawn = SlowVfs(), Leaving(), Probes(), Withdrawn()
    mounted: list[Mounted] = []

    async def asked(args: dict[str, Any], progress: control.Progress) -> Any:
        return vfs.asked

    async def about(args: dict[str, Any], progress: control.Progress) -> Any:
        return {"pid": os.getpid(), "device": mounted[0].device, "loop": mounted[0].loop, "tuned": mounted[0].tuned,
                "inodes": len(vfs.inodes)}

    async def load(args: dict[str, Any], progress: control.Progress) -> Any:
        for name in args["names"]:
            beside.start_soon(getattr(probes, name))

    async def late(args: dict[str, Any], progress: control.Progress) -> Any:
        return probes.summary()

    async def slow(args: dict[str, Any], progress: control.Progress) -> Any:
        if args["on"]:
            vfs.go = trio.Event()
        else:
            vfs.go.set()

    async def full(args: dict[str, Any], progress: control.Progress) -> Any:
        if args["on"]:
            vfs.room = trio.Event()
        else:
            vfs.room.set()

    async def withdraw(args: dict[str, Any], progress: control.Progress) -> Any:
        withdrawn.one()

    async def leave(args: dict[str, Any], progress: control.Progress) -> Any:
        leaving.ask()

    def on_mounted(about: Mounted) -> None:
        mounted.append(about)
        lifecycle.sd_notify(READY=1, STATUS="mounted")
        report.mounted(device=about.device)
        if foreground:
            print("mounted", flush=True)

    async def signals() -> None:
        await lifecycle.watch_signals(leave=leaving.ask, reload=lifecycle.reopen_logs)

    ops: dict[str, control.Handler] = {"asked": asked, "about": about, "load": load, "late": late, "slow": slow, "full": full,
                                       "leave": leave, "withdraw": withdraw}
    async with trio.open_nursery() as beside, control.control_server(socket_path, ops):
        beside.start_soon(signals)
        await serve(cast(Vfs, vfs), mnt, options, on_mounted=on_mounted, leaving=leaving)
        lifecycle.sd_notify(STOPPING=1)
        logging.warning("served")
        beside.cancel_scope.cancel()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("mnt")
    parser.add_argument("socket")
    parser.add_argument("--options", default="{}")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--fg", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG, filename=args.log, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("pyfuse3").setLevel(logging.INFO)
    options = FuseOptions(**{"source": "mem://test,with\\comma", **json.loads(args.options)})
    mnt, socket_path = os.path.abspath(args.mnt), os.path.abspath(args.socket)
    try:
        lifecycle.daemonise(lambda report: trio.run(run, mnt, socket_path, options, report, args.fg), foreground=args.fg,
                            log_path=args.log.absolute() if args.log else None)
    except S3cfsError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
