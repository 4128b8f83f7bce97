"""Before and after a mount: is the folder fit to be mounted on, is FUSE there at all, and how to unmount."""
from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import subprocess

from s3cfs.errors import MountpointError, NoFuse, SystemFailure
from s3cfs.fuse.mounttable import MountEntry, entry_at, resolve
from s3cfs.fuse.options import FSTYPE

DEV_FUSE = "/dev/fuse"
FUSERMOUNT = "fusermount3"
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
STALE_TRIES = 16                      # dead mounts lying on top of one another
FUSERMOUNT_TIMEOUT_S = 60.0

_libc = ctypes.CDLL(None, use_errno=True)


class Busy(MountpointError):
    """Something still uses the mount."""


def check_fuse() -> None:
    """NoFuse, in one line that says what to do, unless this process can mount."""
    try:
        os.close(os.open(DEV_FUSE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise NoFuse(f"{DEV_FUSE} is missing: load the module (modprobe fuse), or start the container with --device {DEV_FUSE} "
                     "and CAP_SYS_ADMIN") from None
    except OSError as error:
        raise NoFuse(f"{DEV_FUSE} cannot be opened: {error.strerror}; its mode should be 0666, or your user in its group") from None
    if os.geteuid() != 0 and shutil.which(FUSERMOUNT) is None:
        raise NoFuse(f"an ordinary user needs {FUSERMOUNT} to mount: install the package fuse3, or mount as root")


def prepare(path: str, *, nonempty: bool = False) -> str:
    """The real path of a folder that can be mounted on; MountpointError in one line otherwise.

    The corpse of a mount whose daemon died is unmounted first (lazily: something may still sit in it).
    """
    here = resolve(path)
    for _ in range(STALE_TRIES):
        entry = entry_at(here)
        if entry is None:
            break
        if not is_dead(entry):
            what = f"{entry.source} ({entry.fstype})" if entry.source else entry.fstype
            raise MountpointError(f"{here}: {what} is mounted there already")
        unmount(here, lazy=True)
    try:
        found = os.stat(here)
        if not stat.S_ISDIR(found.st_mode):
            raise MountpointError(f"{here}: not a folder")
        with os.scandir(here) as entries:
            empty = next(entries, None) is None
        if not empty and not nonempty:
            raise MountpointError(f"{here}: not empty (-o nonempty mounts over what is there)")
    except FileNotFoundError:
        raise MountpointError(f"{here}: no such folder (mkdir it first)") from None
    except OSError as error:
        raise MountpointError(f"{here}: {error.strerror}") from None
    return here


def is_dead(entry: MountEntry) -> bool:
    """Whether this is a mount of ours without a daemon. Waits for the answer of one that is alive, or of one that hangs."""
    if entry.fstype != FSTYPE:
        return False
    try:
        os.statvfs(entry.mountpoint)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def unmount(path: str, *, lazy: bool = False) -> None:
    """umount(2), or fusermount3 -u for an ordinary user. Busy when it is; a lazy unmount never is.

    Blocks until the kernel has handed the daemon all it held back, so never call it in the daemon's event-loop thread.
    """
    target = resolve(path)
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)) == 0:
            return
        number = ctypes.get_errno()
        if number == errno.EBUSY:
            raise Busy(f"{target}: in use (--lazy unmounts it when it no longer is)")
        if number == errno.EINVAL:
            raise MountpointError(f"{target}: nothing is mounted there")
        raise SystemFailure(f"{target}: cannot unmount: {os.strerror(number)}")
    try:
        done = subprocess.run([FUSERMOUNT, "-u", *(["-z"] if lazy else []), "--", target], capture_output=True, text=True,
                              timeout=None if not lazy else FUSERMOUNT_TIMEOUT_S)
    except FileNotFoundError:
        raise NoFuse(f"an ordinary user needs {FUSERMOUNT} to unmount: install the package fuse3") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[-1].removeprefix(f"{FUSERMOUNT}: ") if said else f"{FUSERMOUNT} answered {done.returncode}"
        if "busy" in reason.lower():
            raise Busy(f"{target}: in use (--lazy unmounts it when it no longer is)")
        raise MountpointError(f"{target}: {reason}")
