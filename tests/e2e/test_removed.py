"""Somebody's broom: the local state, the control socket or the registry's entry removed beside a running mount."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s3cfs import control

from .kit import Filesystem, Mount, mounted_at, until, wait_gone

pytestmark = pytest.mark.mount
MIB = 1 << 20


def sweep(mount: Mount) -> None:
    """All of the cache folder, as `rm -rf` does it, while the daemon cannot notice."""
    mount.signal(signal.SIGSTOP)
    shutil.rmtree(mount.cachedir)
    mount.signal(signal.SIGCONT)


def waits(pid: int) -> bool:
    folder = Path("/proc", str(pid), "fd")
    return any(os.readlink(entry).startswith("socket:") for entry in folder.iterdir() if entry.is_symlink())


def in_the_store(fs: Filesystem, expected: dict[str, bytes]) -> None:
    """Looked at by another machine."""
    mount = fs.mount("-o", "ro", where="elsewhere", cache="other machine")
    for name, data in expected.items():
        assert (mount / name).read_bytes() == data, name
    mount.umount()
    fs.fsck()


def test_the_cache_folder_and_an_unmount_right_after(local_fs: Filesystem):
    """Everything that was unsent comes to the store, and the unmount waits for that."""
    mount = local_fs.mount("--commit-interval", "60s")
    kept = {"synced": os.urandom(40 * MIB), "closed": os.urandom(3 * MIB), "small": b"small"}
    for name, data in kept.items():
        with (mount / name).open("wb") as file:
            file.write(data)
            if name == "synced":
                os.fsync(file.fileno())
    sweep(mount)
    mount.umount()
    in_the_store(local_fs, kept)


def test_the_cache_folder_and_work_that_goes_on(local_fs: Filesystem):
    """It is noticed and said, what was unsent goes to the store at once, and from then on an fsync waits for the store."""
    mount = local_fs.mount("--commit-interval", "60s")
    kept = {"before": os.urandom(20 * MIB), "after": os.urandom(20 * MIB)}
    (mount / "before").write_bytes(kept["before"])
    sweep(mount)
    until(lambda: mount.stat()["state"] == "cache-gone", "stat says so")
    assert "cache folder was removed" in mount.stat()["message"] and "cache-gone" in local_fs.s3cfs("stat", mount.path)
    until(lambda: mount.stat()["lag"]["bytes"] == 0, "what was unsent is in the store")
    assert "state=cache-gone" in mount.log()                       # a new file in the folder that was made again
    with (mount / "after").open("wb") as file:
        file.write(kept["after"])
        os.fsync(file.fileno())
    mount.kill()
    in_the_store(local_fs, kept)
    again = local_fs.mount()                                       # with what lies in the folder that was made again
    assert all((again / name).read_bytes() == data for name, data in kept.items())
    again.umount()


def test_what_cannot_be_brought_to_the_store_is_told(local_fs: Filesystem):
    """The store is gone, too: the end says what is lost, on the terminal and in the exit code."""
    mount = local_fs.mount("--commit-interval", "60s")
    (mount / "unsent").write_bytes(os.urandom(MIB))
    sweep(mount)
    until(lambda: mount.stat()["state"] == "cache-gone", "noticed")
    until(lambda: mount.stat()["lag"]["bytes"] == 0, "sent")
    store = Path(local_fs.url.removeprefix("local://"))
    store.rename(store.with_name("away"))
    store.touch()                                                   # nothing can be put there
    (mount / "lost").write_bytes(os.urandom(MIB))
    process = subprocess.Popen([sys.executable, "-m", "s3cfs", "umount", mount.path], env=local_fs.environment(), text=True,
                               stderr=subprocess.PIPE)
    until(lambda: not mounted_at(mount.path), "unmounted")
    until(lambda: waits(process.pid), "the command waits on the control socket")
    assert mount.alive and process.poll() is None
    mount.signal(signal.SIGTERM)
    until(lambda: "signal=SIGTERM" in mount.log(), "the first one was taken: two at once are one")
    mount.signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode not in (0, 4) and "are lost" in said.splitlines()[-1] and wait_gone(mount.pid), said
    store.unlink()
    store.with_name("away").rename(store)


def test_the_socket_and_the_registry(local_fs: Filesystem):
    """A cleaner of /tmp or /run: both are made again, and the mount is found as before."""
    mount = local_fs.mount()
    before = control.find(str(mount.path))
    entry, = control.registry_folder().glob(f"{before.device}-*-{mount.pid}.json")
    assert json.loads(entry.read_text())["pid"] == mount.pid and not before.socket.startswith(str(mount.cachedir))
    os.unlink(before.socket)
    entry.unlink()
    until(lambda: entry.exists() and os.path.exists(before.socket), "made again")
    assert mount.stat()["state"] == "ok"
    mount.umount()
    assert not entry.exists() and not os.path.exists(before.socket)
