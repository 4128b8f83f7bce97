"""Mount points that are not fit, dead mounts, the mount table."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s3cfs import limits
from s3cfs.errors import ExitCode, MountpointError
from s3cfs.fuse import mountpoint, mounttable
from tests.e2e.kit import LET_GO
from tests.fuse.conftest import REPOSITORY, Mount


def refused(path: Path) -> str:
    with pytest.raises(MountpointError) as caught:
        mountpoint.prepare(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_that_are_not_fit(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "missing")
    (tmp_path / "file").touch()
    assert "not a folder" in refused(tmp_path / "file")
    assert "not empty" in refused(tmp_path)
    assert mountpoint.prepare(str(tmp_path), nonempty=True) == str(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert mountpoint.prepare(str(tmp_path / "link")) == str(tmp_path / "empty")


def test_something_is_mounted_already(mount: Mount) -> None:
    daemon = mount()
    assert "mem://test,with\\comma (fuse.s3cfs) is mounted there already" in refused(daemon.path)
    (daemon.path / "still").touch()
    assert "(proc) is mounted there already" in refused(Path("/proc"))


def test_the_mount_of_a_dead_daemon_is_cleaned(mount: Mount) -> None:
    daemon = mount()
    fd = os.open(daemon.path / "f", os.O_RDWR | os.O_CREAT)        # somebody still sits in it
    daemon.process.send_signal(signal.SIGKILL)
    daemon.wait()
    assert daemon.mounted()
    entry = mounttable.entry_at(str(daemon.path))
    assert entry is not None and mountpoint.is_dead(entry)
    assert mountpoint.prepare(str(daemon.path)) == str(daemon.path)
    assert not daemon.mounted()
    with pytest.raises(OSError):
        os.fsync(fd)
    with pytest.raises(OSError):
        os.close(fd)


def test_busy_and_lazy(mount: Mount) -> None:
    daemon = mount()
    fd = os.open(daemon.path / "f", os.O_RDWR | os.O_CREAT)
    with pytest.raises(mountpoint.Busy, match="in use"):
        mountpoint.unmount(str(daemon.path))
    assert daemon.mounted()
    mountpoint.unmount(str(daemon.path), lazy=True)
    assert not daemon.mounted() and daemon.process.poll() is None
    os.write(fd, b"still served")
    assert os.pread(fd, 5, 0) == b"still"
    os.close(fd)
    assert daemon.wait() == 0
    with pytest.raises(MountpointError, match="nothing is mounted"):
        mountpoint.unmount(str(daemon.path))


def test_the_source_and_the_owner_are_in_the_table(mount: Mount) -> None:
    daemon = mount(extra=["noatime"])
    entry = mounttable.entry_at(str(daemon.path))
    assert entry is not None
    assert (entry.fstype, entry.source, entry.owner) == ("fuse.s3cfs", "mem://test,with\\comma", os.geteuid())
    assert entry.device == daemon.ask("about")["device"] and "noatime" in entry.options


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_kernel_is_tuned(mount: Mount) -> None:
    about = mount(read_ahead_kib=2048).ask("about")
    assert about["tuned"]["read_ahead_kb"] == "2048" and about["tuned"]["max_background"] == str(limits.KERNEL_BACKGROUND)
    assert Path("/sys/class/bdi", about["device"], "read_ahead_kb").read_text() == "2048\n"


def test_mount_table_is_parsed() -> None:
    table = (b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
             b"90 22 0:41 / /mnt/with\\040space\\134x rw,nosuid shared:9 master:1 - fuse.s3cfs s3c://h/b rw,user_id=1000,group_id=7\n"
             b"torn line\n")
    first, second = mounttable.parse(table)
    assert (first.mountpoint, first.device, first.owner) == ("/", "8:1", None)
    assert (second.mountpoint, second.source, second.owner) == ("/mnt/with space\\x", "s3c://h/b", 1000)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_fuse_one_line_says_what_is_missing(tmp_path: Path) -> None:
    """In a mount namespace whose /dev/fuse is hidden."""
    (tmp_path / "mnt").mkdir()
    script = (f"{LET_GO}; mount -t tmpfs none /dev && "
              f"{sys.executable} -m tests.fuse.memmount {tmp_path}/mnt {tmp_path}/socket --log {tmp_path}/log")
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == ExitCode.NO_FUSE, done.stderr
    assert done.stderr.startswith("/dev/fuse is missing: load the module") and done.stderr.count("\n") == 1
