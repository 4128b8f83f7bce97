"""Two machines on one store: real processes in pid namespaces of their own, with local states of their own, on each tier.

One is the writer, the other is told why; whoever is thrown out on request learns by whom with its next fsync, loses nothing that it was
told is kept, and mounts again.
"""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from s3cfs.errors import ExitCode
from tests.servers import Server, Store

from .conftest import Make
from .kit import LET_GO, Filesystem, until

REFUSED_WITHIN_S = 180.0           # an idle writer signs off after 15 s, and whoever waits looks every 3 s; the rest is for a busy machine
ENDS_WITHIN_S = 180.0


@dataclass
class Machine:
    """A pid namespace whose first process is a mount in the foreground; its files are reached through /proc."""

    fs: Filesystem
    name: str
    options: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None
    pid: int = 0                   # of the mount, in our namespace
    said: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    @property
    def mountpoint(self) -> Path:
        return self.fs.base / f"mnt-{self.name}"

    @property
    def path(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.mountpoint}")

    @property
    def cachedir(self) -> Path:
        return self.fs.base / f"cache-{self.name}"

    def start(self, *options: str) -> None:
        self.mountpoint.mkdir(exist_ok=True)
        self.said, self.pid = [], 0
        command = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
                   f'{LET_GO}; hostname {self.name} && mount -t tmpfs tmpfs /run && exec "$@"', "sh",
                   sys.executable, "-m", "s3cfs", "mount", "--fg", "--cachedir", str(self.cachedir), *self.options, *options, self.fs.url,
                   str(self.mountpoint)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        env=self.fs.environment(), cwd=self.fs.base)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process is not None and self.process.stderr is not None
        with self.process.stderr as lines:
            self.said.extend(lines)

    def text(self) -> str:
        return "".join(self.said)

    def mounted(self) -> bool:
        """Whether it answers; False when the process has ended."""
        assert self.process is not None

        def known() -> bool:
            if self.process is None or self.process.poll() is not None:
                return True
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if not children:
                return False
            self.pid = int(children[0])
            with contextlib.suppress(OSError):
                return f" {self.mountpoint} " in Path(f"/proc/{self.pid}/mountinfo").read_text()
            return False
        until(known, f"{self.name} mounts or ends: {self.text()}", REFUSED_WITHIN_S)
        return self.process.poll() is None

    def up(self, *options: str) -> None:
        self.start(*options)
        assert self.mounted(), f"{self.name}: {self.text()}"

    def refused(self, *options: str) -> str:
        """What it says instead of mounting."""
        self.start(*options)
        assert not self.mounted(), f"{self.name} was let in"
        return self.ended(ExitCode.ALREADY_MOUNTED)

    def ended(self, code: int) -> str:
        assert self.process is not None and self.reader is not None
        got = self.process.wait(ENDS_WITHIN_S)
        self.reader.join()
        assert got == code, f"{self.name} ended with {got}, not {code}: {self.text()}"
        return self.text()

    def leave(self, code: int = 0) -> str:
        os.kill(self.pid, signal.SIGTERM)
        return self.ended(code)

    def write(self, name: str, text: str) -> None:
        """Written, fsynced, and the fsync was acknowledged; OSError otherwise."""
        with open(self.path / name, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> dict[str, str]:
        return {entry.name: entry.read_text() for entry in self.path.iterdir()}

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()                # unshare goes, and with it the namespace (--kill-child)
            self.process.wait()
        if self.reader is not None:
            self.reader.join()


@contextlib.contextmanager
def machines(fs: Filesystem, *options: str) -> Iterator[tuple[Machine, Machine]]:
    both = Machine(fs, "alpha", options), Machine(fs, "beta", options)
    try:
        yield both
    finally:
        for machine in both:
            machine.stop()


def in_turns(fs: Filesystem, *options: str) -> None:
    with machines(fs, *options) as (alpha, beta):
        alpha.up()
        alpha.write("one", "of alpha")
        told = beta.refused()                  # alpha is busy, then idle: it is the writer all the same
        assert "alpha (process 1)" in told and "idle since" in told and "--takeover" in told, told
        beta.up("-o", "takeover=idle")
        assert "waiting" not in beta.text(), "an idle writer was waited for"
        until(lambda: "took this filesystem over from alpha" in beta.text(), "it says so on the terminal")
        beta.write("two", "of beta")
        with pytest.raises(OSError):
            alpha.write("three", "of alpha, and never acknowledged")
        with pytest.raises(OSError):           # it writes no more, and still reads
            alpha.write("four", "")
        assert alpha.read()["one"] == "of alpha"
        told = alpha.leave(ExitCode.ALREADY_MOUNTED)
        assert "beta (process 1) took this filesystem over at 20" in told and str(alpha.cachedir) in told, told
        alpha.start()
        assert not alpha.mounted()
        told = alpha.ended(ExitCode.DIVERGED)
        assert str(alpha.cachedir) in told and "--set-aside" in told, told
        beta.leave()
        alpha.up("--set-aside")
        assert alpha.read() == {"one": "of alpha", "two": "of beta"}
        kept, = alpha.cachedir.glob("*.set-aside-*")
        assert str(kept) in alpha.text() and (kept / "meta.db").stat().st_size
        alpha.write("five", "of alpha")
        alpha.leave()


def at_once(fs: Filesystem, *options: str) -> None:
    """Both begin at the same moment: one is the writer, the other hears of it."""
    with machines(fs, *options) as both:
        for machine in both:
            machine.start()
        with ThreadPoolExecutor(2) as pool:
            up = list(pool.map(Machine.mounted, both))
        assert sorted(up) == [False, True], [machine.text() for machine in both]
        winner, loser = both if up[0] else both[::-1]
        assert "this filesystem" in loser.ended(ExitCode.ALREADY_MOUNTED)
        winner.write("last", winner.name)
        winner.leave()
        loser.up()                             # in turns, without a wait
        assert loser.read()["last"] == winner.name
        loser.leave()


@pytest.mark.parametrize("story", [in_turns, pytest.param(at_once, marks=pytest.mark.soak)])
def test_two_machines(story: Callable[..., None], make: Make, moto_s3: Server, rclone_s3: Server) -> None:
    """On each tier at the same time: most of it is waiting."""
    stores: list[tuple[Filesystem, tuple[str, ...]]] = [
        (make(moto_s3, "t1").mkfs(), ()), (make(rclone_s3, "t2").mkfs(), ()), (make(rclone_s3, "sole").mkfs(), ("--sole-writer",)),
        (make(None, "folder").mkfs(), ())]
    with ThreadPoolExecutor(len(stores)) as pool:
        for done in [pool.submit(story, fs, *options) for fs, options in stores]:
            done.result()


@pytest.mark.soak
def test_two_machines_on_one_store(make: Make, store: Store) -> None:
    """`make backends` asks for it."""
    in_turns(make(store, "turns").mkfs())
    at_once(make(store, "at-once").mkfs())
