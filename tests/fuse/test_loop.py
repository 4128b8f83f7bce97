"""Both request loops: do they end cleanly, and do other tasks move while requests pour in?"""
from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NoReturn, cast

import pyfuse3
import pytest
import trio

from s3cfs.fuse import loop, mountpoint
from s3cfs.fuse.mounttable import entry_at
from s3cfs.fuse.options import FuseOptions
from s3cfs.fuse.session import serve
from s3cfs.vfs.core import Vfs
from tests.fuse.conftest import Daemon, Mount, until
from tests.fuse.memvfs import MemVfs

FLOOD = """
import os, sys, time
kind, folder, end, least = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3]), int(sys.argv[4])
folder += f"/load-{os.getpid()}"
done = 0
try:
    os.mkdir(folder)
    file = os.open(folder + "/file", os.O_RDWR | os.O_CREAT)
    print("begun", flush=True)
    while time.monotonic() < end or done < least:
        for number in range(50):
            if kind == "fstat":
                os.fstat(file)
            elif kind == "fsync":
                os.pwrite(file, b"x" * 512, 0)
                os.fsync(file)
            else:
                fd = os.open(f"{folder}/f{number}", os.O_WRONLY | os.O_CREAT)
                os.write(fd, b"x" * 4096)
                os.close(fd)
                os.unlink(f"{folder}/f{number}")
            done += 1
except OSError:
    pass        # unmounted meanwhile, which is what some tests want
print(done)
"""

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LOOPS = pytest.mark.parametrize("kind", ["hybrid", "stock"])
ANSWERED_WITHIN_S = 20              # what a Flood asks at least; a loop that starves it needs for ever
UNCACHED = {"attr_timeout_s": 0, "entry_timeout_s": 0, "negative_timeout_s": 0, "writeback": False}


class Flood:
    """Requests from another process until the time is over and, on however busy a machine, `least` are answered; or the mount is gone."""

    def __init__(self, kind: str, folder: Path, seconds: float, least: int = 0) -> None:
        command = [sys.executable, "-S", "-c", FLOOD, kind, str(folder), str(seconds), str(least)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.end = time.monotonic() + seconds + ANSWERED_WITHIN_S
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], ANSWERED_WITHIN_S)[0]:
            self.fails("nothing that it asked was answered")
        self.process.stdout.readline()

    def rounds(self) -> int:
        try:
            return int(self.process.communicate(timeout=max(0, self.end - time.monotonic()))[0] or 0)
        except subprocess.TimeoutExpired:
            self.fails("too little of what it asked was answered")

    def fails(self, why: str) -> NoReturn:
        self.kill()
        pytest.fail(f"{why} within {ANSWERED_WITHIN_S} s")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=15)


@LOOPS
@pytest.mark.parametrize("load", ["fstat", "create"])
def test_other_tasks_move_under_load(mount: Mount, kind: str, load: str) -> None:
    """Judged is the loop's own CPU time while a timer of 1 ms waits: a busy machine adds to everything else."""
    daemon = mount(loop=kind, **UNCACHED)
    assert daemon.ask("about")["loop"] == kind
    floods = [Flood(load, daemon.path, 1.5, least=100) for _ in range(2)]
    daemon.ask("load", names=["timer", "echo", "hop"])
    assert min([flood.rounds() for flood in floods]) >= 100
    late = daemon.ask("late")
    print(kind, load, late)
    assert late["held"][2] <= 5                               # 99 % of them, ms
    assert min(late[name][0] for name in ("timers", "echoes", "hops")) > 50


@LOOPS
def test_requests_are_received_while_handlers_wait(mount: Mount, kind: str) -> None:
    daemon = mount(loop=kind, **UNCACHED)
    daemon.ask("slow", on=True)
    waiting = [Flood("fsync", daemon.path, 0.2) for _ in range(3)]
    until(lambda: daemon.asked("fsync") == 3, "three fsyncs wait")
    assert Flood("fstat", daemon.path, 0.3, least=100).rounds() >= 100
    daemon.ask("slow", on=False)
    assert min([flood.rounds() for flood in waiting]) > 0


@LOOPS
def test_a_task_that_never_rests_does_not_starve_requests(mount: Mount, kind: str) -> None:
    daemon = mount(loop=kind, **UNCACHED)
    daemon.ask("load", names=["busy"])
    assert Flood("fstat", daemon.path, 0.5, least=50).rounds() >= 50


def leave(daemon: Daemon) -> None:
    daemon.ask("leave")


def umount(daemon: Daemon) -> None:
    mountpoint.unmount(str(daemon.path), lazy=True)


def sigterm_twice(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: "leaving" in daemon.log.read_text(), "the first signal is seen")
    daemon.process.send_signal(signal.SIGTERM)


def abort(daemon: Daemon) -> None:
    """By an administrator."""
    entry = entry_at(str(daemon.path))
    assert entry is not None
    place, number = "/sys/fs/fuse/connections", entry.device.partition(":")[2]
    subprocess.run(["unshare", "-m", "sh", "-c", f"mount -t fusectl none {place} && echo 1 > {place}/{number}/abort"], check=True)


@LOOPS
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("way", [leave, umount, sigterm_twice, pytest.param(abort, marks=AS_ROOT)])
def test_it_ends(mount: Mount, kind: str, loaded: bool, way) -> None:
    daemon = mount(loop=kind, **UNCACHED)
    floods = [Flood("create", daemon.path, 60) for _ in range(2 if loaded else 0)]
    try:
        began = time.monotonic()
        way(daemon)
        if way is umount:
            for flood in floods:                              # a lazy unmount waits for the last open file
                flood.kill()
        code, said = daemon.wait(), daemon.said()
        assert (code, daemon.mounted()) == (0, False), said
        assert time.monotonic() - began < (9 if way is leave and loaded else 4)
        assert "served" in said and "Traceback" not in said
    finally:
        for flood in floods:
            flood.kill()


@LOOPS
def test_killed_clients_do_no_harm(mount: Mount, kind: str) -> None:
    daemon = mount(loop=kind, **UNCACHED)
    for _ in range(4):
        for victim in [Flood("create", daemon.path, 60) for _ in range(2)]:
            victim.kill()
    assert Flood("create", daemon.path, 0.3).rounds() > 0


@LOOPS
def test_a_request_that_was_withdrawn_blocks_nobody(mount: Mount, kind: str) -> None:
    """Nobody touches the mount here: a request would wake the read."""
    daemon = mount(loop=kind)
    for _ in range(20):
        daemon.ask("withdraw", within_s=5)
        daemon.ask("about", within_s=5)


KILLER = """
import ctypes, os, signal, sys, time
PR_SET_PDEATHSIG = 1
for number in range(int(sys.argv[2])):
    victim = os.fork()
    if victim == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        while True:
            os.path.lexists(f"{sys.argv[1]}/{number}")
    time.sleep(0.002 + number % 41 * 0.00005)
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    print(number, flush=True)
    sys.stdin.readline()
"""


def kill_clients(daemon: Daemon, times: int) -> None:
    """Clients that are killed in the middle of a call, each followed by a look at the daemon that touches no mount."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", KILLER, daemon.path, str(times)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as killer:
        assert killer.stdin is not None and killer.stdout is not None
        for number in range(times):
            assert killer.stdout.readline() == f"{number}\n"
            daemon.ask("about", within_s=5)
            print(file=killer.stdin, flush=True)
    assert killer.returncode == 0


@LOOPS
def test_killed_clients_stop_nothing(mount: Mount, kind: str) -> None:
    kill_clients(mount(loop=kind, **UNCACHED), 150)


@LOOPS
@pytest.mark.soak
def test_a_thousand_killed_clients_stop_nothing(mount: Mount, kind: str) -> None:
    kill_clients(mount(loop=kind, **UNCACHED), 1000)


@LOOPS
def test_cancellation_ends_the_loop_and_unmounts(tmp_path: Path, kind: str, mount: Mount) -> None:
    async def main() -> None:
        mounted = trio.Event()
        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                async def run() -> None:
                    options = FuseOptions("mem://", loop=kind)
                    await serve(cast(Vfs, MemVfs()), str(tmp_path), options, on_mounted=lambda about: mounted.set())
                nursery.start_soon(run)
                await mounted.wait()
                assert entry_at(str(tmp_path)) is not None
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert entry_at(str(tmp_path)) is None


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EIO])
def test_a_read_that_meets_an_abort_is_an_end_and_any_other_error_is_none(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch,
                                                                         mount: Mount) -> None:
    """Rarely, and under load only, an unmount gives pyfuse3's read ECONNABORTED, and it raises."""
    real = pyfuse3.main

    async def main_that_breaks(**how: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(real, **how))
            await mounted.wait()
            raise OSError(number, "fuse_session_receive_buf failed with what libfuse does not know")

    async def main() -> None:
        with trio.fail_after(15):
            await serve(cast(Vfs, MemVfs()), str(tmp_path), FuseOptions("mem://"), on_mounted=lambda about: mounted.set())

    mounted = trio.Event()
    monkeypatch.setattr(pyfuse3, "main", main_that_breaks)
    if number == errno.ECONNABORTED:
        trio.run(main)
    else:
        with pytest.raises(OSError, match="libfuse does not know"):
            trio.run(main)
    assert entry_at(str(tmp_path)) is None


def test_versions_that_are_not_known_get_the_stock_loop(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def kind() -> str:
        async with loop.request_loop("hybrid") as found:
            return found

    assert trio.run(kind) == "hybrid"
    monkeypatch.setattr(trio, "__version__", "7.1.0")
    assert trio.run(kind) == "stock"
    assert [record.getMessage() for record in caplog.records] == [
        "stock request loop instead of the fast one: not known to work with trio 7.1.0"]


@pytest.mark.parametrize("trio_version, pyfuse3_version", [("0.21.0", "3.4.0"), ("0.30", "4.0.1"), ("x", "3.4")])
def test_version_bounds(trio_version: str, pyfuse3_version: str) -> None:
    loop.check_versions("0.30.0+dev", "3.4.0")
    with pytest.raises(RuntimeError, match="not known to work"):
        loop.check_versions(trio_version, pyfuse3_version)
