"""mount(8) and umount(8) with the links of `make install`, in a mount namespace of its own; and what `umount` waits for."""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs.errors import ExitCode

from .conftest import Make
from .kit import LET_GO, REPOSITORY, Filesystem, mounted_at, until, wait_gone
from .test_lives import slow_store
from .test_refusals import needs_root, refused, tmpfs

pytestmark = pytest.mark.mount
MIB = 1 << 20
NAMESPACE = ["unshare", "--mount", "sh", "-c"]


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[str]:
    """A shell command that lays the links of `make install` over /sbin, for the mount namespace that it runs in."""
    with tmpfs(tmp_path / "links", "size=8m") as links:
        upper, work = links / "sbin", links / "work"
        for folder in (links / "bin", upper, work):
            folder.mkdir()
        subprocess.run(["make", "-s", "-o", "setup", "install", f"PREFIX={links}", f"SBIN={upper}"], cwd=REPOSITORY, check=True)
        sbin = os.path.realpath("/sbin")
        yield f"mount -t overlay links -o lowerdir={sbin},upperdir={upper},workdir={work} {sbin}"


@needs_root
def test_mount_and_umount_by_the_systems_commands(local_fs: Filesystem, installed: str):
    """suid and dev are defaults of mount(8), which does not pass them on; umount returns when everything is in the store."""
    mnt, data = local_fs.base / "mnt", local_fs.base / "data"
    mnt.mkdir()
    data.write_bytes(os.urandom(8 * MIB))
    options = f"authfile={local_fs.authfile},cachedir={local_fs.base}/cache,commit-interval=60s"
    script = f"""set -e
        {installed}
        mount -t s3cfs -o suid,dev,{options} {local_fs.url} {mnt}
        grep -F " {mnt} " /proc/self/mountinfo
        cp {data} {mnt}/data
        umount {mnt}
        mount -t fuse.s3cfs -o nosuid,{options} {local_fs.url} {mnt}
        grep -F " {mnt} " /proc/self/mountinfo
        cmp {data} {mnt}/data
        cp {data} {mnt}/more
        umount {mnt}
        rm -r {local_fs.base}/cache"""
    done = subprocess.run([*NAMESPACE, f"{LET_GO}; {script}"], env=local_fs.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second = (set(line.split()[5].split(",")) for line in done.stdout.splitlines())
    assert "nosuid" not in first and "nodev" not in first
    assert "nosuid" in second and "nodev" not in second
    mount = local_fs.mount("-o", "ro")
    assert (mount / "data").read_bytes() == (mount / "more").read_bytes() == data.read_bytes()
    mount.umount()


@contextlib.contextmanager
def mounted_in_another_namespace(path: Path) -> Iterator[int]:
    """A process in a mount namespace of its own, where this stays mounted."""
    others = f"findmnt -rno TARGET -t fuse.s3cfs | grep -vx {path}"
    with subprocess.Popen([*NAMESPACE, f"for other in $({others}); do umount -i -l $other; done; exec sleep 1000"]) as sleeper:
        try:
            until(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n", "it sleeps in there")
            yield sleeper.pid
        finally:
            sleeper.kill()


@needs_root
def test_umount_of_what_another_namespace_has_mounted_too(local_fs: Filesystem):
    """It ends, says who, and everything is in the store; the process ends with the last mount."""
    mount = local_fs.mount("--commit-interval", "60s")
    data = os.urandom(MIB)
    with mounted_in_another_namespace(mount.path) as sleeper:
        (mount / "data").write_bytes(data)
        refused(local_fs, "umount", mount.path, code=ExitCode.MOUNTPOINT, says=f"process {sleeper}")
        assert not mounted_at(mount.path) and mount.alive and mount.stat()["lag"]["bytes"] == 0
    assert wait_gone(mount.pid)
    local_fs.lose()
    mount = local_fs.mount("-o", "ro")
    assert (mount / "data").read_bytes() == data
    mount.umount()


@needs_root
def test_sigterm_while_another_namespace_has_it_mounted_too(local_fs: Filesystem):
    """It ends as it does while files are open: after some seconds, with everything in the store."""
    mount = local_fs.mount("--commit-interval", "60s")
    data = os.urandom(MIB)
    with mounted_in_another_namespace(mount.path):
        (mount / "data").write_bytes(data)
        mount.signal(signal.SIGTERM)
        assert wait_gone(mount.pid) and not mounted_at(mount.path)
        assert "is still mounted" in mount.log()
    local_fs.lose()
    mount = local_fs.mount("-o", "ro")
    assert (mount / "data").read_bytes() == data
    mount.umount()


@needs_root
def test_umount_of_what_is_bound_elsewhere_too(make: Make):
    fs = make().mkfs()
    mount, elsewhere = fs.mount(), fs.base / "elsewhere"
    elsewhere.mkdir()
    (mount / "data").write_bytes(b"data")
    subprocess.run(["mount", "--bind", mount.path, elsewhere], check=True)
    try:
        refused(fs, "umount", mount.path, code=ExitCode.MOUNTPOINT, says=f"still mounted as {elsewhere}")
        assert (elsewhere / "data").read_bytes() == b"data"
    finally:
        subprocess.run(["umount", "-i", elsewhere], check=True)
    assert wait_gone(mount.pid)


def test_umount_of_a_process_that_is_killed_meanwhile(make: Make):
    """What has not gone up is said, and goes up at the next mount."""
    with slow_store(make) as (fs, server):
        mount = fs.mount("--commit-interval", "60s")
        data = os.urandom(MIB)
        (mount / "data").write_bytes(data)
        subprocess.run(["sync", mount / "data"], check=True)
        server.stop()
        with subprocess.Popen([sys.executable, "-m", "s3cfs", "umount", mount.path], env=fs.environment(), stderr=subprocess.PIPE,
                              text=True) as umount:
            try:
                until(lambda: not mounted_at(mount.path), "unmounted")
                mount.kill()
                _, said = umount.communicate(timeout=10)
            finally:
                umount.kill()
        assert umount.returncode == ExitCode.SYSTEM and "goes up at the next mount" in said.splitlines()[-1], said
        server.start()
        mount = fs.mount()
        assert (mount / "data").read_bytes() == data
        mount.umount()


@pytest.mark.soak                    # for the ten seconds that umount waits
def test_a_process_that_is_stopped(local_fs: Filesystem):
    """umount gives up instead of hanging where nobody could kill it, and nothing has changed."""
    mount = local_fs.mount()
    (mount / "data").write_bytes(b"data")
    mount.signal(signal.SIGSTOP)
    try:
        refused(local_fs, "umount", mount.path, code=ExitCode.NO_ANSWER, says=str(mount.pid))
    finally:
        mount.signal(signal.SIGCONT)
    assert mounted_at(mount.path) and (mount / "data").read_bytes() == b"data"
    mount.umount()
