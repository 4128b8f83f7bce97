"""What the daemon needs done to its own mount from outside, as a process of its own (run by path, standard library only).

    helper.py probe MNT        statvfs: does the mount answer?
    helper.py unmount MNT      everything the kernel holds back is handed to the daemon, then the mount goes away

Never in a thread of the daemon: a thread that waits for its own mount cannot be killed while the daemon's other threads keep
/dev/fuse open, and they stay until it ends. As another process it dies with the mount.

unmount ends with 0 when unmounted, 3 when something is in use: then the folder is free, but the filesystem lives until the last
user is gone (lazy unmount).
"""
from __future__ import annotations

import ctypes
import os
import subprocess
import sys

DETACHED = 3
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


def unmount(path: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)

    def take(lazy: bool) -> bool:
        if os.geteuid() == 0:
            return bool(libc.umount2(os.fsencode(path), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)) == 0)
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", path]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

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


def main(argv: list[str]) -> int:
    action, path = argv
    if action == "probe":
        os.statvfs(path)
        return 0
    return unmount(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
