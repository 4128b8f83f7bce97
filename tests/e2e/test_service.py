"""A mount in the foreground, as a service manager has it: what it is told, and how the mount ends."""
from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from s3cfs import control
from s3cfs.errors import ExitCode

from .conftest import Make
from .kit import REPOSITORY, Filesystem, Mount, mounted_at, until

pytestmark = pytest.mark.mount
MIB = 1 << 20


@dataclass
class Service:
    """The process and the datagrams that it sent."""

    process: subprocess.Popen[str]
    door: socket.socket
    told: list[str] = field(default_factory=list)

    def heard(self, text: str) -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told.append(self.door.recv(4096).decode())
        return any(text in datagram for datagram in self.told)


@contextlib.contextmanager
def service(fs: Filesystem, *args: str, **env: str) -> Iterator[tuple[Service, Mount]]:
    """`s3cfs mount --fg` with somebody who listens."""
    path = fs.base / "mnt"
    path.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        address = f"\0s3cfs-test-{os.getpid()}-{id(door)}"
        door.bind(address)
        door.setblocking(False)
        command = [sys.executable, "-m", "s3cfs", "mount", "--fg", "--cachedir", str(fs.base / "cache"), *args, fs.url, str(path)]
        process = subprocess.Popen(command, env=fs.environment(NOTIFY_SOCKET="@" + address[1:], **env), text=True, stderr=subprocess.PIPE)
        mount = Mount(fs, path, fs.base / "cache", process.pid)
        fs.mounts.append(mount)
        try:
            running = Service(process, door)
            until(lambda: running.heard("READY=1") or process.poll() is not None, "ready")
            yield running, mount
        finally:
            process.kill()
            process.communicate()


def test_what_the_service_manager_is_told(local_fs: Filesystem):
    """READY, the state and the lag while it runs, damage as soon as a read meets it, that it leaves; a sign of life where one is wanted."""
    first = local_fs.mount()
    (first / "whole").write_bytes(os.urandom(MIB))
    first.flush()
    (first / "data").write_bytes(os.urandom(MIB))
    first.umount()
    pack = max((Path(local_fs.url.removeprefix("local://")) / "pack").rglob("*-*"), key=lambda path: path.stat().st_mtime_ns)
    pack.write_bytes(bytes(pack.stat().st_size))
    shutil.rmtree(first.cachedir)
    with service(local_fs, WATCHDOG_USEC="60000000") as (running, mount):
        until(lambda: running.heard("STATUS=ok; everything is in the store") and running.heard("WATCHDOG=1"), "all is well")
        (mount / "new").write_bytes(b"new")
        with pytest.raises(OSError):
            (mount / "data").read_bytes()
        until(lambda: running.heard("STATUS=damaged: "), "the damage is told")
        until(lambda: mount.stat()["damage"]["last"], "with the file")
        found = mount.stat()
        assert found["state"] == "damaged" and found["damage"]["chunks"] == found["damage"]["met"] > 0 and "/data" in found["message"]
        assert {find["path"] for find in found["damage"]["last"]} == {"/data"}
        assert "/data bytes 0-" in local_fs.s3cfs("stat", mount.path)
        assert (mount / "whole").stat().st_size == MIB
        running.process.send_signal(signal.SIGTERM)
        _, said = running.process.communicate(timeout=30)
        assert running.process.returncode == 0 and "damaged: /data bytes" in said and "state=damaged" in said, said
        assert running.heard("STOPPING=1") and running.heard("EXTEND_TIMEOUT_USEC=")


def names(value: Any, within: str = "") -> set[str]:
    """Every name in a JSON object, with those above it; what stands below `by_kind` and in lists is data."""
    found: set[str] = set()
    for key, inner in value.items():
        found.add(f"{within}{key}")
        if isinstance(inner, dict) and within != "store.by_kind.":
            found |= names(inner, f"{within}{key}.")
    return found


def test_the_documented_names_of_stat_are_the_real_ones(local_fs: Filesystem):
    documented = json.loads(re.search(r"```json\n(.*?)```", (REPOSITORY / "docs" / "stat.md").read_text(), re.DOTALL)[1])  # type: ignore[index]
    mount = local_fs.mount()
    (mount / "file").write_bytes(os.urandom(MIB))
    mount.flush()
    found = json.loads(local_fs.s3cfs("stat", "--json", mount.path))
    assert {name for name in names(found) if not name.startswith("store.requests.")} == \
        {name for name in names(documented) if not name.startswith("store.requests.")}
    mount.umount()


def test_a_deposed_mount_ends_with_an_error(make: Make):
    """Whoever took over is told, what is not in the store is told, and the exit code is not 0."""
    fs = make().mkfs()
    with service(fs, "--commit-interval", "100ms") as (running, mount):
        (mount / "first").write_bytes(b"first")
        until(lambda: mount.stat()["lag"]["bytes"] == 0, "it is in the store")
        second = fs.mount("--takeover", where="elsewhere", cache="other machine")
        with contextlib.suppress(OSError):
            (mount / "too late").write_bytes(os.urandom(MIB))
        until(lambda: running.heard("STATUS=deposed: "), "told")
        assert mount.stat()["state"] == "deposed"
        done = fs.run("ctl", "flush", mount.path)
        assert done.returncode == ExitCode.ALREADY_MOUNTED and "took this filesystem over" in done.stderr and done.stderr.count("\n") == 1
        done = fs.run("umount", mount.path)
        assert done.returncode == ExitCode.ALREADY_MOUNTED and done.stderr.count("\n") == 1 and str(mount.state) in done.stderr
        _, said = running.process.communicate(timeout=30)
        assert running.process.returncode == ExitCode.ALREADY_MOUNTED and str(mount.state) in said.splitlines()[-1], said
        running.heard("")
        assert f"are kept in {mount.state}" in running.told[-1]                   # what `systemctl status` shows afterwards
        second.umount()


def test_a_foreground_mount_that_fails_says_why(local_fs: Filesystem):
    """No way to go on: one line, its code, and nothing stays mounted."""
    shutil.rmtree(Path(local_fs.url.removeprefix("local://")) / "super")
    with service(local_fs) as (running, mount):
        _, said = running.process.communicate(timeout=30)
        assert running.process.returncode == ExitCode.NO_FILESYSTEM and len(said.splitlines()) == 1
        assert not mounted_at(mount.path) and not running.heard("READY=1")
        with pytest.raises(Exception, match="no s3cfs"):
            control.find(str(mount.path))


def test_all_threads_share_one_heap(local_fs: Filesystem):
    """Each has one of its own if glibc is not told before there is a second thread: they grow apart, by 200 MB."""
    mount = local_fs.mount()
    data = os.urandom(24 << 20)
    (mount / "file").write_bytes(data)
    mount.flush()
    assert (mount / "file").read_bytes() == data
    tasks = len(os.listdir(f"/proc/{mount.pid}/task"))
    maps = [line.split() for line in Path(f"/proc/{mount.pid}/maps").read_text().splitlines()]
    starts = [int(fields[0].partition("-")[0], 16) for fields in maps if fields[1] == "rw-p" and len(fields) == 5]
    assert tasks > 1 and not [start for start in starts if start % (64 << 20) == 0]
    mount.umount()
