"""Clients that are killed, a daemon that is stopped, a store that is silent or gone: nothing hangs, and what was accepted is there."""
from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import copier
from .conftest import Make
from .kit import Mount, mounted_at, until
from .test_crashes import working
from .test_lives import Stoppable, slow_store
from .test_refusals import needs_root

pytestmark = pytest.mark.mount
MIB = 1 << 20
SOON_S = 10.0


@contextlib.contextmanager
def silent(server: Stoppable) -> Iterator[None]:
    """The store's process is stopped: connections stay, answers do not come."""
    os.kill(server.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.server.pid, signal.SIGCONT)


def soon(what: str, *command: str | Path) -> None:
    """A command that must not hang (it is left behind when it does: nobody could kill it) nor fail."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _, said = process.communicate(timeout=SOON_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{what} hangs") from None
    assert process.returncode == 0, f"{what}: {said.decode(errors='replace')}"


def not_cached(path: Path) -> None:
    """So that the next read of it is a request."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# writes so many MiB, from a seed, fsyncs, and says what it has written
WRITER = """
import hashlib, os, random, sys
dice, digest = random.Random(int(sys.argv[3])), hashlib.sha256()
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
for _ in range(int(sys.argv[2])):
    block = dice.randbytes(1 << 20)
    assert os.write(fd, block) == len(block)
    digest.update(block)
os.fsync(fd)
os.close(fd)
print(digest.hexdigest())
"""


@needs_root                                  # others may not tell the kernel how much it may hold back
def test_a_full_journal_beside_a_silent_store(make: Make, seed: int):
    """Pages that the kernel accepted wait; reading, removing and chmod go on; who waits for room can be killed."""
    with slow_store(make) as (fs, server):
        mount = fs.mount("--commit-interval", "200ms", "--journal-size", "64MiB")
        data = os.urandom(2 * MIB)
        for name in ("kept", "removed"):
            (mount / name).write_bytes(data)
        mount.flush()
        not_cached(mount / "kept")
        with silent(server):
            writer = subprocess.Popen([sys.executable, "-I", "-S", "-c", WRITER, mount / "large", "230", str(seed)],
                                      stdout=subprocess.PIPE, text=True)
            waiting = None
            try:
                until(lambda: mount.stat()["state"] == "waiting", "the journal is full", 60)
                soon("a read of a local file", "cmp", mount / "kept", mount / "kept")
                soon("stat of a new name", "sh", "-c", f"! test -e {mount / 'new'}")
                soon("ls", "ls", "-la", mount.path)
                soon("chmod", "chmod", "600", mount / "kept")
                soon("rename", "mv", mount / "kept", mount / "renamed")
                soon("rm", "rm", mount / "removed")
                waiting = subprocess.Popen(["mkdir", mount / "folder"], stderr=subprocess.PIPE)
                time.sleep(0.2)
                if waiting.poll() is None:   # else it was told that there is no room
                    waiting.kill()
                assert waiting.wait(SOON_S) in (1, -signal.SIGKILL)
                assert writer.poll() is None, "it waits, and has no error"
            finally:
                os.kill(server.server.pid, signal.SIGCONT)
                said, _ = writer.communicate(timeout=120)
                if waiting is not None:
                    waiting.communicate()
        assert writer.returncode == 0, "no error in the end"
        not_cached(mount / "large")
        assert digest(mount / "large") == said.strip()
        assert (mount / "renamed").read_bytes() == data and sorted(os.listdir(mount.path)) == ["large", "renamed"]
        mount.umount()
        fs.lose()
        mount = fs.mount("-o", "ro")
        assert digest(mount / "large") == said.strip()
        mount.umount()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# appends blocks that tell their number to a file, renames it when it is long, and says beside the mount what has been done
CLIENT = """
import os, sys
mnt, said, number = sys.argv[1], open(sys.argv[2], "a", buffering=1), int(sys.argv[3])
while True:
    with open(f"{mnt}/{number}.part", "wb", buffering=0) as file:
        for block in range(40):
            file.write((b"%d %d " % (number, block) * 1000)[:5000])
        if number % 3 == 0:
            os.fsync(file.fileno())
    os.rename(f"{mnt}/{number}.part", f"{mnt}/{number}")
    print(number, file=said)
    number += 1
"""


def content(number: int) -> bytes:
    return b"".join((b"%d %d " % (number, block) * 1000)[:5000] for block in range(40))


def kill_clients(make: Make, rounds: int, seed: int) -> None:
    """Programs are killed in the middle of calls: the mount goes on, and what they had done is there, on another machine too."""
    dice = random.Random(seed)
    fs = make().mkfs()
    mount = fs.mount("--commit-interval", "200ms")
    done = fs.base / "done"
    done.touch()
    for number in range(rounds):
        before = done.stat().st_size
        clients = [subprocess.Popen([sys.executable, "-I", "-S", "-c", CLIENT, mount.path, done, str(1000 * number + 500 * which)])
                   for which in range(2)]
        until(lambda: done.stat().st_size > before + 20, "they work", 30)          # noqa: B023
        time.sleep(dice.random() / 20)
        for client in clients:
            client.kill()
            assert client.wait(SOON_S) == -signal.SIGKILL
        assert mount.stat()["state"] == "ok"
    finished = [int(line) for line in done.read_text().split()]
    assert len(finished) > rounds
    check(mount, finished)
    mount.umount()
    fs.lose()
    mount = fs.mount("-o", "ro", cache="other machine")
    check(mount, finished)
    mount.umount()


def check(mount: Mount, finished: list[int]) -> None:
    """What was finished is whole; a file that was begun is a beginning."""
    for number in finished:
        assert (mount / str(number)).read_bytes() == content(number), number
    for path in mount.path.glob("*.part"):
        assert content(int(path.stem)).startswith(path.read_bytes()), path


def test_clients_that_are_killed(make: Make, seed: int):
    kill_clients(make, 4, seed)


@pytest.mark.soak
def test_many_clients_that_are_killed(make: Make, seed: int):
    kill_clients(make, 200, seed)


def stop_the_daemon(mount: Mount, server: Stoppable, seconds: float) -> None:
    mount.signal(signal.SIGSTOP)
    time.sleep(seconds)                      # this is the trouble itself
    mount.signal(signal.SIGCONT)


def silence_the_store(mount: Mount, server: Stoppable, seconds: float) -> None:
    with silent(server):
        time.sleep(seconds)


def pull_the_store(mount: Mount, server: Stoppable, seconds: float) -> None:
    server.stop()
    time.sleep(seconds)
    server.start()


TROUBLES: tuple[Callable[[Mount, Stoppable, float], None], ...] = (stop_the_daemon, silence_the_store, pull_the_store)


def trouble(make: Make, seed: int, rounds: int, longest_s: float) -> None:
    """Work goes on through all of it, without an error, and nothing is lost or hangs."""
    dice = random.Random(seed)
    with slow_store(make) as (fs, server):
        mount = fs.mount("--commit-interval", "200ms")
        steps: list[copier.Step] = []
        for number in range(rounds):
            steps = copier.plan(seed, 150 * (number + 1))
            with working(fs.base, mount.path, steps[150 * number:]) as work:
                for happens in dice.sample(TROUBLES, len(TROUBLES)):
                    happens(mount, server, dice.uniform(0.2, longest_s))
                assert work.process.wait(120) == 0, "the work has met an error"
        compare(mount, steps)
        until(lambda: mount.stat()["lag"]["bytes"] == 0 and mount.stat()["state"] == "ok", "everything arrived", 60)
        mount.umount()
        assert not mounted_at(mount.path)
        fs.lose()
        mount = fs.mount("-o", "ro", cache="other machine")
        compare(mount, steps)
        mount.umount()
        fs.fsck()


def compare(mount: Mount, steps: list[copier.Step]) -> None:
    n, wrong = copier.matching_step(steps, copier.tree_of(mount.path))
    assert n == len(steps) and not wrong, (n, wrong)


def test_work_through_trouble(make: Make, seed: int):
    trouble(make, seed, 1, 1.0)


@pytest.mark.soak
def test_work_through_much_trouble(make: Make, seed: int):
    trouble(make, seed, 8, 40.0)
