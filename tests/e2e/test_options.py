"""What a mount can be told, and what it can be asked."""
from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import Server, moto_s3, rclone_s3  # noqa: F401  (fixtures)

from .conftest import Make
from .kit import LET_GO, Filesystem, Mount, mounted_at, processes_naming, until, wait_gone
from .test_refusals import needs_root

pytestmark = pytest.mark.mount
MIB = 1 << 20


def in_mount_table(path: Path) -> tuple[set[str], str, str]:
    """Options, type and source of a mount."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, target, kind, options, *_ = line.split()
        if target == str(path):
            return set(options.split(",")), kind, source
    raise AssertionError(f"{path} is not mounted")


@contextmanager
def fails(*numbers: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno in numbers, caught.value


@pytest.mark.parametrize("how", [["-o", "ro,noatime"], ["--read-only"], ["--ro", "-o", "_netdev,nofail,x-systemd.automount,nodev,nosuid"]])
def test_read_only(local_fs: Filesystem, how: list[str]):
    mount = local_fs.mount()
    (mount / "file").write_bytes(b"content" * 1000)
    mount.umount()
    before = sorted(path.name for path in (local_fs.base / "store").rglob("*") if path.is_file())
    mount = local_fs.mount(*how)
    options, kind, source = in_mount_table(mount.path)
    assert "ro" in options and kind == "fuse.s3cfs" and source == local_fs.url
    assert ("noatime" in options) == ("noatime" in "".join(how))
    assert (mount / "file").read_bytes() == b"content" * 1000
    for attempt in (lambda: (mount / "new").touch(), lambda: (mount / "file").unlink(), lambda: (mount / "file").chmod(0o600),
                    lambda: os.setxattr(mount / "file", "user.x", b""), lambda: (mount / "file").write_bytes(b"")):
        with fails(errno.EROFS):
            attempt()
    assert mount.stat()["read_only"] is True
    mount.flush()
    mount.umount()
    assert before == sorted(path.name for path in (local_fs.base / "store").rglob("*") if path.is_file()), "a read-only mount wrote"


def test_two_filesystems_at_once(make: Make, rclone_s3: Server):  # noqa: F811
    one, two = make(rclone_s3, name="one").mkfs("--label", "first"), make(rclone_s3, name="two").mkfs("--label", "second")
    two.env["S3CFS_CACHEDIR"] = str(one.base / "cache")           # one cache folder for both
    first = one.mount()
    second = two.mount(cache="../one/cache")
    (first / "x").write_bytes(b"one")
    (second / "x").write_bytes(b"two")
    assert (first / "x").read_bytes() == b"one" and (second / "x").read_bytes() == b"two"
    said = json.loads(two.s3cfs("stat", "--json", second.path))
    assert first.stat()["label"] == "first" and said["label"] == "second" and said["pid"] == second.pid != first.pid
    assert "second" in two.s3cfs("stat", second.path)
    subprocess.run(["cp", first / "x", second / "y"], check=True)
    first.umount()
    assert (second / "y").read_bytes() == b"one"
    second.umount()


def test_a_second_reader(make: Make, moto_s3: Server):  # noqa: F811
    """Read-only beside the writer, with a cache of its own."""
    fs = make(moto_s3).mkfs()
    writer = fs.mount("--commit-interval", "100ms")
    (writer / "file").write_bytes(b"first")
    writer.flush()
    reader = fs.mount("-o", "ro", where="reader", cache="reader's")
    assert (reader / "file").read_bytes() == b"first"
    (writer / "file").write_bytes(b"second")
    writer.flush()
    assert (reader / "file").read_bytes() == b"first"
    reader.umount()
    reader = fs.mount("-o", "ro", where="reader", cache="reader's")
    assert (reader / "file").read_bytes() == b"second"
    reader.umount()
    writer.umount()


def test_drop_cache(make: Make, rclone_s3: Server):  # noqa: F811
    mount = make(rclone_s3).mkfs().mount()
    data = os.urandom(8 * MIB)
    (mount / "file").write_bytes(data)
    mount.flush()
    before = mount.stat()
    assert before["cache"]["bytes"] > 8 * MIB
    said = json.loads(mount.fs.s3cfs("ctl", "drop-cache", "--json", mount.path))
    assert said["freed_bytes"] > 8 * MIB and mount.stat()["cache"]["bytes"] == 0
    handle = os.open(mount / "file", os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)
    assert (mount / "file").read_bytes() == data
    after = mount.stat()
    assert after["store"]["requests"]["get"] > before["store"]["requests"]["get"] and after["cache"]["misses"] > 0
    assert after["store"]["requests"]["get"] - before["store"]["requests"]["get"] < 30


def test_log_levels_and_no_names_in_the_log(local_fs: Filesystem):
    mount = local_fs.mount()
    mount.fs.s3cfs("ctl", "log-level", mount.path, "debug")
    (mount / "first").write_bytes(b"x")
    mount.flush()
    mount.fs.s3cfs("ctl", "log-level", mount.path, "warning")
    before = mount.log()
    secret_name = mount / "name-that-is-nobody's-business"
    secret_name.write_bytes(b"x")
    secret_name.rename(mount / "another-such-name")
    mount.flush()
    assert mount.log() == before
    mount.fs.s3cfs("ctl", "log-level", mount.path, "info")
    (mount / "one-more-such-name").mkdir()
    mount.umount()
    text = mount.log()[len(before):]
    assert "such-name" not in text and "business" not in text and str(local_fs.passphrase) not in mount.log()


def test_foreground_and_service_manager(local_fs: Filesystem):
    """--fg under Type=notify: READY when it answers, STOPPING at the end; the log on stderr; the exit code of an orderly end is 0."""
    import socket
    path = local_fs.base / "mnt"
    path.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        os.chdir(local_fs.base)
        manager.bind("notify")
        os.chdir("/")
        manager.settimeout(20)
        process = subprocess.Popen([sys.executable, "-m", "s3cfs", "mount", "--fg", local_fs.url, path], stderr=subprocess.PIPE, text=True,
                                   env=local_fs.environment(NOTIFY_SOCKET=str(local_fs.base / "notify")))
        mount = Mount(local_fs, path, local_fs.base / "cache", process.pid)
        local_fs.mounts.append(mount)
        said = [manager.recv(4096).decode()]
        while "READY=1" not in said[-1]:
            said.append(manager.recv(4096).decode())
        assert mounted_at(path) and mount.stat()["pid"] == process.pid
        (path / "file").write_bytes(b"x")
        process.terminate()
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0 and "Traceback" not in err
        said.append(manager.recv(4096).decode())
        while "STOPPING=1" not in said[-1]:
            said.append(manager.recv(4096).decode())


@contextmanager
def helpers() -> Iterator[None]:
    """mount.s3cfs and umount.s3cfs where mount(8) looks for them, for this checkout; only what is not there already."""
    made = []
    for name, function in (("mount.s3cfs", "mount_main"), ("umount.s3cfs", "umount_main")):
        path = Path("/sbin", name)
        if os.path.lexists(path):
            continue
        path.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
                        f"from s3cfs.cli import {function}\nsys.exit({function}())\n")
        path.chmod(0o755)
        made.append(path)
    try:
        yield
    finally:
        for path in made:
            path.unlink()


@needs_root
def test_through_mount_8(local_fs: Filesystem):
    path = local_fs.base / "mnt"
    path.mkdir()
    env = {name: value for name, value in local_fs.environment().items() if not name.startswith("S3CFS_")}
    options = (f"_netdev,nofail,noauto,x-systemd.requires=network.target,authfile={local_fs.authfile},"
               f"cachedir={local_fs.base}/cache,commit_interval=200ms,noatime,nodev")
    mount = Mount(local_fs, path, local_fs.base / "cache")
    local_fs.mounts.append(mount)
    with helpers():
        subprocess.run(["mount", "-t", "s3cfs", "-o", options, local_fs.url, path], check=True, env=env, timeout=60)
        mount.pid = mount.stat()["pid"]
        assert {"rw", "noatime", "nodev"} <= in_mount_table(path)[0]
        (path / "file").write_bytes(b"through mount(8)")
        busy = subprocess.run(["mount", "-t", "s3cfs", "-o", options, local_fs.url, path], env=env, timeout=60, capture_output=True,
                              text=True)
        assert busy.returncode == 32, busy
        wrong = subprocess.run(["mount", "-t", "s3cfs", "-o", f"{options},no_such_option", local_fs.url, path], env=env, timeout=60,
                               capture_output=True, text=True)
        assert wrong.returncode == 1 and "no_such_option" in wrong.stderr
        subprocess.run(["umount", path], check=True, env=env, timeout=60)
        assert not mounted_at(path) and wait_gone(mount.pid, 5), "umount(8) returns when everything is in the store"
        fstab = local_fs.base / "fstab"
        fstab.write_text(f"{local_fs.url} {path} s3cfs {options} 0 0\n")
        subprocess.run(["mount", "-T", fstab, path], check=True, env=env, timeout=60)
        mount.pid = mount.stat()["pid"]
        assert (path / "file").read_bytes() == b"through mount(8)"
        subprocess.run(["mount", "-o", "remount,ro", path], env=env, timeout=60, capture_output=True)
        subprocess.run(["umount", "-l", path], check=True, env=env, timeout=60)
        assert wait_gone(mount.pid)


@needs_root
def test_an_ordinary_user(make: Make, tmp_path_factory: pytest.TempPathFactory):
    """Through fusermount3, with a cache of their own."""
    if not shutil.which("fusermount3"):
        pytest.skip("no fusermount3")
    who = 65534
    base = Path(subprocess.run(["mktemp", "-d", "/tmp/s3cfs-user-XXXXXX"], capture_output=True, text=True, check=True).stdout.strip())
    fs = Filesystem(base / "fs", f"local://{base}/store")
    (base / "store").mkdir()
    try:
        for path in (base, base / "store", fs.base, fs.authfile):
            os.chown(path, who, who)
        script = f"{LET_GO}; set -e;" + """
            mount -t tmpfs dev /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/fuse c 10 229; cd "$1"; shift
            exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search sh -ec '
                mkdir mnt; "$@" mkfs "$URL" >/dev/null; "$@" mount "$URL" mnt; echo content >mnt/file; id -u
                stat -c %u mnt/file; "$@" stat --json mnt >stat; "$@" umount mnt; test ! -e mnt/file
                "$@" mount -o ro "$URL" mnt; cat mnt/file; fusermount3 -u mnt' sh "$@"
        """
        own_namespace = ["unshare", "-m", "sh", "-c"]
        done = subprocess.run([*own_namespace, script, "sh", fs.base, sys.executable, "-m", "s3cfs"], text=True, timeout=60,
                              env=fs.environment(URL=fs.url, HOME=str(fs.base), XDG_RUNTIME_DIR=str(fs.base)), capture_output=True)
        assert done.returncode == 0 and done.stdout.split() == ["65534", "65534", "content"], done
        until(lambda: not processes_naming(str(base)), "the last process has ended")
    finally:
        fs.close()
        shutil.rmtree(base)


@pytest.mark.soak
def test_idle_for_two_minutes_then_silent_for_ten(make: Make, moto_s3: Server):  # noqa: F811
    mount = make(moto_s3).mkfs().mount()
    (mount / "file").write_bytes(os.urandom(MIB))
    time.sleep(120)
    settled = mount.stat()["store"]
    time.sleep(600)
    assert mount.requests() == settled["requests"]
    (mount / "file").write_bytes(b"awake")            # the first change claims again
    mount.umount()


def test_an_idle_mount_is_silent(make: Make, rclone_s3: Server):  # noqa: F811
    """After the last commit nothing goes to the store while nobody does anything; reading what is at hand does not, either."""
    mount = make(rclone_s3).mkfs().mount("--commit-interval", "100ms")
    (mount / "file").write_bytes(os.urandom(MIB))
    mount.flush()
    until(lambda: mount.stat()["lag"]["bytes"] == 0, "everything in the store")
    settled = mount.requests()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert (mount / "file").stat().st_size == MIB and len((mount / "file").read_bytes()) == MIB
        assert mount.requests() == settled
    mount.umount()


def test_the_mount_survives_its_command(local_fs: Filesystem):
    """Killing the whole process group of the command does not end the daemon; nothing of the terminal is held."""
    path = local_fs.base / "mnt"
    path.mkdir()
    done = subprocess.run([sys.executable, "-m", "s3cfs", "mount", local_fs.url, path], env=local_fs.environment(), start_new_session=True,
                          capture_output=True, timeout=60)          # returns: the pipes are closed
    assert done.returncode == 0 and done.stdout == done.stderr == b""
    mount = Mount(local_fs, path, local_fs.base / "cache")
    local_fs.mounts.append(mount)
    mount.pid = mount.stat()["pid"]
    assert os.getsid(mount.pid) not in (os.getsid(0),) and os.readlink(f"/proc/{mount.pid}/cwd") == "/"
    mount.umount()


