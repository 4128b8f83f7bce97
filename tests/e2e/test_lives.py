"""How a mount ends, what it outlives, and that it can always be ended."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from s3cfs.errors import ExitCode
from tests.servers import free_port, moto_s3, rclone_s3, rclone_server  # noqa: F401  (fixtures)

from .conftest import Make
from .kit import LET_GO, Filesystem, Mount, mounted_at, processes_naming, until, wait_gone
from .test_refusals import needs_root, refused, tmpfs

pytestmark = pytest.mark.mount
MIB = 1 << 20


def system_umount(mount: Mount) -> None:
    subprocess.run(["umount", "-i", mount.path] if os.geteuid() == 0 else ["fusermount3", "-u", mount.path], check=True)


WAYS: dict[str, Callable[[Mount], Any]] = {
    "SIGTERM": lambda mount: mount.signal(signal.SIGTERM),
    "SIGINT": lambda mount: mount.signal(signal.SIGINT),
    "umount": system_umount,
    "fusermount3 -u": lambda mount: subprocess.run(["fusermount3", "-u", mount.path], check=True),
    "fusermount3 -u -z": lambda mount: subprocess.run(["fusermount3", "-u", "-z", mount.path], check=True),
    "s3cfs umount": lambda mount: mount.umount(),
    "s3cfs umount --lazy": lambda mount: mount.fs.s3cfs("umount", "--lazy", mount.path),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_orderly_end_brings_everything_to_the_store(local_fs: Filesystem, way: str):
    mount = local_fs.mount("--commit-interval", "60s")
    data = os.urandom(3 * MIB)
    (mount / "closed").write_bytes(data)
    WAYS[way](mount)
    assert wait_gone(mount.pid) and not mounted_at(mount.path)
    local_fs.lose()
    mount = local_fs.mount("-o", "ro")
    assert (mount / "closed").read_bytes() == data
    mount.umount()


def test_the_kernels_unmount_and_a_mount_right_after(local_fs: Filesystem):
    """The next mount waits for the process that still uploads."""
    mount = local_fs.mount("--commit-interval", "60s")
    data = os.urandom(40 * MIB)
    (mount / "large").write_bytes(data)
    system_umount(mount)
    again = local_fs.mount()
    assert not mount.alive
    assert (again / "large").read_bytes() == data
    again.umount()


def test_busy(local_fs: Filesystem):
    mount = local_fs.mount()
    (mount / "held").write_bytes(b"held open")
    with (mount / "held").open("rb") as file:
        refused(local_fs, "umount", mount.path, code=ExitCode.MOUNTPOINT, says="in use")
        assert mounted_at(mount.path) and mount.stat()["state"] == "ok"
        local_fs.s3cfs("umount", "--lazy", mount.path)
        assert not mounted_at(mount.path)
        assert file.read() == b"held open" and mount.alive
    assert wait_gone(mount.pid)


def test_sigterm_while_busy(local_fs: Filesystem):
    """Whoever holds on to it gets a few seconds."""
    mount = local_fs.mount()
    with (mount / "held").open("wb") as file:
        file.write(os.urandom(MIB))
        file.flush()
        mount.signal(signal.SIGTERM)
        assert wait_gone(mount.pid) and not mounted_at(mount.path)
        with pytest.raises(OSError):
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            file.close()
    mount = local_fs.mount()
    assert (mount / "held").stat().st_size == MIB
    mount.umount()


def test_a_dead_mount_is_cleaned(local_fs: Filesystem):
    mount = local_fs.mount()
    (mount / "a").write_bytes(b"a")
    mount.flush()
    held = os.open(mount / "a", os.O_RDONLY)
    mount.kill()
    assert mounted_at(mount.path)
    refused(local_fs, "stat", mount.path, code=ExitCode.NOT_A_MOUNT)
    mount = local_fs.mount()
    with contextlib.suppress(OSError):
        os.close(held)
    assert (mount / "a").read_bytes() == b"a"
    mount.kill()
    done = local_fs.run("umount", mount.path)
    assert done.returncode == 0 and not mounted_at(mount.path) and len(done.stderr.splitlines()) == 1


def test_an_interrupted_umount_loses_nothing(make: Make):
    with slow_store(make) as (fs, server):
        mount = fs.mount("--commit-interval", "60s")
        data = os.urandom(20 * MIB)
        (mount / "data").write_bytes(data)
        process = subprocess.Popen([sys.executable, "-m", "s3cfs", "umount", mount.path], env=fs.environment(), stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # a test worker ignores it
        server.stop()
        try:
            until(lambda: not mounted_at(mount.path), "unmounted")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
            process.wait()
        assert process.returncode in (0, ExitCode.INTERRUPTED), said
        until(lambda: mount.stat()["commit"]["outbox_bytes"] > 3000, "its chunks are in a transaction: nobody has waited for that")
        mount.kill()
        server.start()
        mount = fs.mount()
        assert (mount / "data").read_bytes() == data
        mount.umount()


@needs_root
@pytest.mark.parametrize("waiting_for", ["the lock", "silence"])
def test_an_interrupted_mount_leaves_nothing(make: Make, waiting_for: str):
    """While it waits for the last writer, in the two places where it does: the process in the background ends too."""
    fs = make().mkfs()
    if waiting_for == "silence":                   # a writer of another PID namespace, of which nobody here can know that it is dead
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", f'{LET_GO}; exec "$@"', "sh"]
        (fs.base / "inside").mkdir()
        first = subprocess.Popen([*command, sys.executable, "-m", "s3cfs", "mount", "--fg", "--cachedir", str(fs.base / "first"), fs.url,
                                  str(fs.base / "inside")], env=fs.environment(), stderr=subprocess.PIPE)
        try:
            until(lambda: list((fs.base / "store" / "log" / "main").glob("*/1-*/*/*/*")), "it is the writer")
        finally:
            first.kill()
            first.communicate()
        stopped = None
    else:
        stopped = fs.mount("--commit-interval", "60s")
        (stopped / "data").write_bytes(b"data")
        stopped.signal(signal.SIGSTOP)
        (stopped.state / "lock").write_text(json.dumps({"pid": stopped.pid, "state": "leaving"}))
    path = fs.base / "second"
    path.mkdir()
    cache = fs.base / ("cache" if stopped else "another")
    waiting = subprocess.Popen([sys.executable, "-m", "s3cfs", "mount", "--cachedir", str(cache), fs.url, str(path)], text=True,
                               env=fs.environment(), stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    try:
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        assert "wait" in said, said
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=15)
        assert (waiting.returncode, said) == (ExitCode.INTERRUPTED, "s3cfs: interrupted\n")
        assert not processes_naming(str(path)) and not mounted_at(path)
    finally:
        waiting.kill()
        waiting.wait()
        if stopped is not None:
            stopped.signal(signal.SIGCONT)
            stopped.umount()


def test_a_stopped_process_is_told_and_a_lock_of_the_caller_is_free(local_fs: Filesystem):
    """Neither stat nor ctl waits for ever, and neither touches the mount first."""
    lock = os.open(local_fs.base / "lock of the caller", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, True)
    try:
        mount = local_fs.mount(pass_fds=[lock])
    finally:
        os.close(lock)
    with (local_fs.base / "lock of the caller").open() as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    mount.signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(refused, local_fs, *argv, mount.path, code=ExitCode.NO_ANSWER, says="stopped")
                     for argv in (("stat",), ("ctl", "flush"))]
            assert all(str(mount.pid) in one.result() for one in asked)
    finally:
        mount.signal(signal.SIGCONT)
    mount.umount()


@pytest.mark.parametrize("kind", ["", pytest.param("rclone_s3", marks=pytest.mark.soak), "moto_s3"])
def test_letters_that_are_not_ascii(make: Make, request: pytest.FixtureRequest, kind: str):
    fs = make(request.getfixturevalue(kind)) if kind else make()
    fs.url = f"{fs.url}/grüße, 家"
    fs.write_authfile()
    if not kind:
        Path(fs.url.removeprefix("local://")).mkdir()
    fs.mkfs("--label", "家")
    mount = fs.mount(where="m ü")
    (mount / "é").write_bytes(b"data")
    assert mount.stat()["url"].endswith("/grüße, 家") and "grüße, 家" in fs.s3cfs("stat", mount.path)
    mount.umount()
    fs.lose()
    mount = fs.mount("-o", "ro", where="m ü")
    assert (mount / "é").read_bytes() == b"data"
    mount.umount()


# ---------------------------------------------------------------- the store goes away

class Stoppable:
    """rclone on a folder and a port that stay."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        self.server = self._stack.enter_context(rclone_server(self.root, port=self.port))

    def stop(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def slow_store(make: Make) -> Iterator[tuple[Filesystem, Stoppable]]:
    probe = make(name="store of the server")
    server = Stoppable(probe.base / "store")
    server.start()
    try:
        yield make(server.server).mkfs(), server
    finally:
        server.stop()


def test_a_store_that_goes_away_and_comes_back(make: Make):
    with slow_store(make) as (fs, server):
        mount = fs.mount("--commit-interval", "200ms")
        before = os.urandom(4 * MIB)
        (mount / "before").write_bytes(before)
        mount.flush()
        server.stop()
        assert (mount / "before").read_bytes() == before
        during = {f"during {number}": os.urandom(300_000) for number in range(20)}
        for name, data in during.items():
            (mount / name).write_bytes(data)
        (mount / "before").rename(mount / "renamed")
        with (mount / "durable").open("wb") as file:
            file.write(b"on the local disk")
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            assert time.monotonic() - began < 5
        until(lambda: mount.stat()["state"] == "store-away", "stat says so", 30)
        found = mount.stat()
        assert found["message"] and found["lag"]["bytes"] > 20 * 300_000 and found["lag"]["seconds"] > 0
        assert (mount / "during 7").read_bytes() == during["during 7"] and (mount / "renamed").read_bytes() == before
        server.start()
        until(lambda: mount.stat()["lag"]["bytes"] == 0, "everything arrived", 60)
        assert mount.stat()["state"] == "ok"
        mount.kill()
        fs.lose()
        mount = fs.mount("-o", "ro")
        assert (mount / "renamed").read_bytes() == before and (mount / "durable").read_bytes() == b"on the local disk"
        assert all((mount / name).read_bytes() == data for name, data in during.items())
        mount.umount()


def test_reads_without_a_store_end(make: Make):
    """What is not at hand: an error in the end, a process that can be killed all the while, and no mark on the chunk."""
    with slow_store(make) as (fs, server):
        data = os.urandom(3 * MIB)
        mount = fs.mount()
        (mount / "data").write_bytes(data)
        mount.umount()
        fs.lose()
        mount = fs.mount()
        server.stop()
        assert (mount / "data").stat().st_size == 3 * MIB and os.listdir(mount.path) == ["data"]
        reader = subprocess.Popen(["cat", mount / "data"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(lambda: mount.stat()["store"]["errors"] or mount.stat()["store"]["retries"], "the read has met the missing store", 30)
        reader.kill()
        reader.communicate(timeout=5)
        server.start()
        assert (mount / "data").read_bytes() == data
        mount.umount()


@pytest.mark.parametrize("way", ["SIGTERM twice", pytest.param("SIGKILL", marks=pytest.mark.soak)])
def test_a_mount_without_a_store_can_be_ended(make: Make, way: str):
    with slow_store(make) as (fs, server):
        mount = fs.mount("--commit-interval", "100ms")
        (mount / "first").write_bytes(b"first")
        mount.flush()
        server.stop()
        data = os.urandom(2 * MIB)
        (mount / "second").write_bytes(data)
        until(lambda: mount.stat()["state"] == "store-away", "noticed", 30)
        if way == "SIGKILL":
            mount.kill()
        else:
            mount.signal(signal.SIGTERM)
            until(lambda: not mounted_at(mount.path), "unmounted")
            assert mount.alive, "it has something to bring to the store"
            mount.signal(signal.SIGTERM)
        assert wait_gone(mount.pid, 15) and not (way != "SIGKILL" and mounted_at(mount.path))
        server.start()
        mount = fs.mount()
        assert (mount / "second").read_bytes() == data
        mount.umount()


@pytest.mark.soak
def test_writers_wait_for_a_store_only_so_long(make: Make):
    """A full queue: writers wait, then ENOSPC; what was taken is kept."""
    with slow_store(make) as (fs, server):
        mount = fs.mount("--commit-interval", "100ms", "--journal-size", "64MiB")
        server.stop()
        written, failure = [], 0
        began = time.monotonic()
        for number in range(40):
            try:
                path = mount / f"file {number}"
                path.write_bytes(os.urandom(4 * MIB))
                written.append(path.name)
            except OSError as error:
                failure = error.errno or 0
                break
        assert failure == 28, f"errno {failure} after {written}"
        assert time.monotonic() - began < 120 and 10 < len(written) < 40
        assert mount.stat()["state"] in ("waiting", "store-away")
        assert (mount / written[0]).stat().st_size == 4 * MIB and len((mount / written[0]).read_bytes()) == 4 * MIB
        server.start()
        until(lambda: mount.stat()["state"] == "ok" and mount.stat()["lag"]["bytes"] == 0, "everything arrived", 90)
        (mount / "goes on").write_bytes(b"after that")
        mount.umount()


# ---------------------------------------------------------------- the local disk is full

@pytest.mark.soak
@needs_root
def test_a_full_local_disk(make: Make):
    with slow_store(make) as (fs, server), tmpfs(fs.base / "small", "size=130m"):
        kept: dict[str, bytes] = {}
        mount = fs.mount("--commit-interval", "100ms", cache="small")
        try:
            server.stop()
            failure = fill(mount, kept)
            assert failure in (28, 5), failure
            assert mount.alive
            for name, data in kept.items():
                assert (mount / name).read_bytes() == data, name
            server.start()
            until(lambda: mount.stat()["lag"]["bytes"] == 0, "everything arrived", 90)
            until(lambda: written(mount / "goes on", b"after that"), "writing goes on", 30)
            mount.umount()
        finally:
            mount.close()
        mount = fs.mount("-o", "ro", where="elsewhere", cache="other machine")
        assert (mount / "goes on").read_bytes() == b"after that"
        for name, data in kept.items():
            assert (mount / name).read_bytes() == data, name
        mount.umount()


@pytest.mark.soak
@needs_root
def test_a_local_disk_that_others_fill_to_the_last_byte(make: Make):
    """Somebody else takes the reserve away too: no corruption, and the mount can be ended; all is well at the next one."""
    fs = make().mkfs()
    with tmpfs(fs.base / "small", "size=200m") as small:
        mount = fs.mount("--commit-interval", "100ms", cache="small")
        try:
            kept = {"first": os.urandom(5 * MIB)}
            (mount / "first").write_bytes(kept["first"])
            mount.flush()
            with contextlib.suppress(OSError), (small / "ballast of others").open("wb") as ballast:
                while True:
                    ballast.write(bytes(MIB))
            failure = fill(mount, {}, 30)
            assert failure in (28, 5, 30), failure
            assert (mount / "first").read_bytes() == kept["first"]
            (small / "ballast of others").unlink()
            mount.signal(signal.SIGTERM)
            assert wait_gone(mount.pid, 30)
        finally:
            mount.close()
        mount = fs.mount(cache="small")
        try:
            assert (mount / "first").read_bytes() == kept["first"]
            (mount / "more").write_bytes(b"more")
            mount.umount()
        finally:
            mount.close()
    mount = fs.mount("-o", "ro", where="elsewhere", cache="other machine")
    assert (mount / "first").read_bytes() == kept["first"] and (mount / "more").read_bytes() == b"more"
    mount.umount()


def fill(mount: Mount, kept: dict[str, bytes], most: int = 100) -> int:
    """Write until it fails; what was written and fsynced goes into `kept`. The errno."""
    for number in range(most):
        data = os.urandom(4 * MIB)
        try:
            with (mount / f"filling {number}").open("wb", buffering=0) as file:
                for at in range(0, len(data), 65536):
                    file.write(data[at:at + 65536])
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno or 0
        kept[f"filling {number}"] = data
    return 0


def written(path: Path, data: bytes) -> bool:
    try:
        path.write_bytes(data)
        return True
    except OSError:
        return False


