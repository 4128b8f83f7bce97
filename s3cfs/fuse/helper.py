"""What the daemon needs done to its own mount from outside, as a process of its own (run by path, standard library only).

    helper.py probe MNT        statvfs: does the mount answer?
    helper.py unmount MNT      everything the kernel holds back is handed to the daemon, then the mount goes away
    helper.py note MNT SOURCE  tell umount(8) that /sbin/umount.s3cfs does it, when it is there
    helper.py forget MNT       it is not mounted any more
    helper.py background N MAX so many requests may the kernel send on connection N ahead of anyone waiting

Never in a thread of the daemon: a thread that waits for its own mount cannot be killed while the daemon's other threads keep
/dev/fuse open, and they stay until it ends. As another process it dies with the mount.

unmount ends with 0 when unmounted, 3 when something is in use: then the folder is free, but the filesystem lives until the last
user is gone (lazy unmount).
"""
from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys

DETACHED = 3
LESS = 4
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
CONNECTIONS = "/sys/fs/fuse/connections"


def write_back(libc: ctypes.CDLL, path: str) -> None:
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc.syncfs(root)
    finally:
        os.close(root)


def unmount(path: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)

    def take(lazy: bool) -> bool:
        if os.geteuid() == 0:
            return bool(libc.umount2(os.fsencode(path), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)) == 0)
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", path]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    with contextlib.suppress(OSError):
        write_back(libc, path)     # what is mounted elsewhere too is not written back by an unmount
    if take(lazy=False):           # the kernel writes everything back before it lets go
        return 0
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return 0 if take(lazy=True) else 1
    try:
        if not take(lazy=True):
            return 1
        libc.syncfs(root)          # what those who still use it have written up to now
    finally:
        os.close(root)
    return DETACHED


def note(path: str, source: str | None) -> int:
    """An entry of libmount's own table (/run/mount/utab), or its end. Without one umount(8) asks statfs for the type, hears "fuse", and
    does not find our helper. Only root writes there; a system without libmount has no umount(8) that asks.
    """
    try:
        libmount = ctypes.CDLL("libmount.so.1")
    except OSError:
        return 1
    for name in ("mnt_new_fs", "mnt_new_update"):
        getattr(libmount, name).restype = ctypes.c_void_p

    def write(target: bytes | None, fs: ctypes.c_void_p | None) -> int:
        update = ctypes.c_void_p(libmount.mnt_new_update())
        return int(libmount.mnt_update_set_fs(update, ctypes.c_ulong(0), target, fs) or libmount.mnt_update_table(update, None))

    failed = write(os.fsencode(path), None)          # what a mount that was killed has left, too
    if source is None:
        return failed
    fs = ctypes.c_void_p(libmount.mnt_new_fs())
    for what, value in (("source", os.fsencode(source)), ("target", os.fsencode(path)), ("fstype", b"fuse.s3cfs"),
                        ("options", b"rw,uhelper=s3cfs")):
        getattr(libmount, f"mnt_fs_set_{what}")(fs, value)
    return write(None, fs)


def background(connection: str, most: str) -> int:
    """Where nobody has mounted fusectl (a container) it is mounted here, in a mount namespace that ends with this process."""
    folder = os.path.join(CONNECTIONS, connection)
    if not os.path.isdir(folder):
        libc = ctypes.CDLL(None, use_errno=True)
        if (libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
                or libc.mount(b"fusectl", CONNECTIONS.encode(), b"fusectl", 0, None)):
            return 1
    try:
        _allow(folder, most)
    except OSError:                   # an ordinary user may have so many
        with open("/sys/module/fuse/parameters/max_user_bgreq") as file:
            _allow(folder, file.read())
        return LESS
    return 0


def _allow(folder: str, most: str) -> None:
    for name in ("max_background", "congestion_threshold"):
        with open(os.path.join(folder, name), "w") as file:
            file.write(most)


def main(argv: list[str]) -> int:
    action, path, *more = argv
    if action == "background":
        return background(path, more[0])
    if action == "probe":
        os.statvfs(path)
        return 0
    if action in ("note", "forget"):
        return note(path, more[0] if more else None)
    return unmount(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
