"""Requests that wait stop nobody else, and whoever waits for room can be killed."""
from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuse.conftest import Daemon, Mount, until
from tests.fuse.test_loop import LOOPS, UNCACHED
from tests.fuse.test_operations import ROOT_ONLY

MIB = 1 << 20
# fsyncs as many files at once as it is told, each by a thread; then says how they ended, an errno a line
FSYNCS = """
import os, sys, threading
ended = []
def fsync(fd):
    try:
        os.fsync(fd)
        ended.append(0)
    except OSError as error:
        ended.append(error.errno)
threads = [threading.Thread(target=fsync, args=(os.open(f"{sys.argv[1]}/{n}", os.O_RDWR | os.O_CREAT),)) for n in range(int(sys.argv[2]))]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*sorted(ended))
"""


class Fsyncs:
    def __init__(self, folder: Path, count: int) -> None:
        self.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", FSYNCS, folder, str(count)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> None:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)

    def ended(self) -> list[int]:
        return [int(number) for number in self.process.communicate(timeout=30)[0].split()]


def all_is_well(daemon: Daemon, name: str) -> None:
    """What never waits is answered: asked by a process that may be left behind, since it could not be killed."""
    script = (f"import os; os.chdir({str(daemon.path)!r}); assert not os.path.exists('{name}'); assert os.path.getsize('here') == 4; "
              f"assert 'here' in os.listdir(); os.rename('here', '{name}'); os.rename('{name}', 'here'); os.statvfs('.')")
    assert run(script) == 0


def run(script: str, seconds: float = 10) -> int | None:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", script])
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return None


@LOOPS
def test_three_hundred_requests_that_wait_stop_nothing(mount: Mount, kind: str) -> None:
    daemon = mount(loop=kind, **UNCACHED)
    (daemon.path / "here").write_bytes(b"here")
    waiting = Fsyncs(daemon.path, 300)
    daemon.ask("slow", on=True)
    waiting.go()
    until(lambda: daemon.asked("fsync") == 300, "they wait")
    all_is_well(daemon, "there")
    daemon.ask("slow", on=False)
    assert waiting.ended() == [0] * 300


def test_more_than_may_wait_are_told(mount: Mount) -> None:
    daemon = mount(max_waiting=20, **UNCACHED)
    (daemon.path / "here").write_bytes(b"here")
    waiting = Fsyncs(daemon.path, 30)
    daemon.ask("slow", on=True)
    waiting.go()
    until(lambda: daemon.asked("fsync") == 20, "as many wait as may")
    all_is_well(daemon, "there")
    assert run(f"import os; os.mkdir({str(daemon.path)!r} + '/d')") == 1, "no room for one more that may wait"
    daemon.ask("slow", on=False)
    assert waiting.ended() == [0] * 20 + [errno.EAGAIN] * 10
    (daemon.path / "d").mkdir()


WAYS = {"mkdir": "os.mkdir('new')", "create": "open('new', 'x')", "symlink": "os.symlink('there', 'new')", "link": "os.link('here', 'new')",
        "mknod": "os.mknod('new')", "open": "open('here', 'a')", "O_TRUNC": "open('here', 'w')", "grow": "os.truncate('here', 9)",
        "setxattr": "os.setxattr('here', 'user.x', b'x')"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_waits_for_room_can_be_killed(mount: Mount, number: signal.Signals) -> None:
    daemon = mount(**UNCACHED)
    for way in WAYS:                             # a folder for each: the kernel locks it
        (daemon.path / way).mkdir()
        (daemon.path / way / "here").write_bytes(b"here")
    daemon.ask("full", on=True)
    waiting = [subprocess.Popen([sys.executable, "-I", "-S", "-c", f"import os; os.chdir({str(daemon.path / way)!r}); {what}"])
               for way, what in WAYS.items()]
    try:
        until(lambda: daemon.asked("enter") == len(WAYS), "they wait")
        for process in waiting:
            process.send_signal(number)
        for way, process in zip(WAYS, waiting, strict=True):
            assert process.wait(10) == -number, way
    finally:
        daemon.ask("full", on=False)
        for process in waiting:
            process.wait(10)
    for way in WAYS:
        assert os.listdir(daemon.path / way) == ["here"] and (daemon.path / way / "here").read_bytes() == b"here"


def test_a_caller_that_lives_waits_on(mount: Mount) -> None:
    """Signals that do not end it are none of our business."""
    daemon = mount(**UNCACHED)
    daemon.ask("full", on=True)
    script = f"import os, signal; signal.signal(signal.SIGUSR1, print); os.mkdir({str(daemon.path)!r} + '/new')"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", script], stdout=subprocess.DEVNULL) as process:
        until(lambda: daemon.asked("enter") == 1, "it waits")
        process.send_signal(signal.SIGUSR1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        daemon.ask("full", on=False)
        assert process.wait(10) == 0
    assert os.listdir(daemon.path) == ["new"]


# writes single pages far from each other, so that each becomes a request of its own, until the kernel makes it wait
WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[2])):
    os.pwrite(fd, n.to_bytes(4, "little") * 1024, n * 8192)
"""
PAGES = 12_000


@ROOT_ONLY                           # others may not tell the kernel how much it may hold back
def test_writes_that_wait_do_not_hold_up_reads(mount: Mount) -> None:
    daemon = mount()
    data = os.urandom(3 * MIB)
    other, large, copy = daemon.path / "other", daemon.path / "large", daemon.path.parent / "copy"
    other.write_bytes(data)
    not_cached(other)
    writer = subprocess.Popen([sys.executable, "-I", "-S", "-c", WRITER, large, str(PAGES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdin is not None and writer.stdout is not None and writer.stdout.readline() == b"ready\n"
    before = daemon.asked("write")
    daemon.ask("full", on=True)
    try:
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        until(lambda: daemon.asked("write") - before > 1000, "writes wait", 40)      # the kernel sends them when it holds too much
        assert run(f"import shutil; shutil.copyfile({str(other)!r}, {str(copy)!r})") == 0
        assert copy.read_bytes() == data and daemon.asked("read")
        assert writer.poll() is None, "the kernel makes it wait"
    finally:
        daemon.ask("full", on=False)
        writer.communicate(timeout=60)
    not_cached(large)
    with large.open("rb") as file:
        for n in range(PAGES):
            assert file.read(8192)[:4096] == n.to_bytes(4, "little") * 1024, n


def not_cached(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
