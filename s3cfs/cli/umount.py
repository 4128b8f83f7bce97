"""`s3cfs umount MNT`: the process that serves the mount uploads what is left; this command shows how far it is and waits."""
from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import say
from s3cfs.control import DaemonGone
from s3cfs.errors import ExitCode, Interrupted, NotAMount, SystemFailure

EPILOG = """\
examples:
  s3cfs umount /mnt/home
      Returns when everything is in the store. Interrupting it loses nothing: the mount point is gone or still there, and what is
      not uploaded stays in the local state and goes up at the next mount.
  s3cfs umount --lazy /mnt/home
      Detach the mount point now, also if files are open; the upload goes on in the background.

`umount` does the same after `make install`, by the link /sbin/umount.fuse.s3cfs. Without it, and as `fusermount3 -u`, it returns at
once and the process goes on uploading before it ends.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Unmount a filesystem. Returns when everything is in the store.",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.NOT_A_MOUNT, ExitCode.MOUNTPOINT, ExitCode.NO_ANSWER, ExitCode.STORE_UNREACHABLE)))
    made.add_argument("mountpoint", metavar="MOUNTPOINT")
    made.add_argument("--lazy", "-z", action="store_true", help="detach at once, upload in the background")
    arguments.add_output(made)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        unmount(args.mountpoint, lazy=args.lazy, progress=progress)
    if args.json:
        print('{"unmounted": true}')
    return 0


def unmount(mountpoint: str, *, lazy: bool, progress: seam.OnProgress) -> None:
    from s3cfs.fuse.mountpoint import is_dead
    from s3cfs.fuse.mountpoint import unmount as detach
    from s3cfs.fuse.mounttable import entry_at
    try:
        info = seam.served(mountpoint)
    except NotAMount:
        entry = entry_at(mountpoint)
        if entry is None or not is_dead(entry):
            raise
        detach(entry.mountpoint, lazy=True)
        say(f"s3cfs: the process behind {entry.mountpoint} was gone; what it had not uploaded goes up at the next mount")
        return
    entry = entry_at(info.mountpoint)                  # None: it is detached already, and its process at work
    if entry is not None:
        seam.alive(info)                               # else the kernel would wait for it, and we could not be killed
    if lazy:
        if entry is not None:
            detach(info.mountpoint, lazy=True)
        return
    process = _open_process(info.pid) if info.here else None
    try:
        with contextlib.suppress(DaemonGone), seam.asked(info.socket, "wait") as answer:    # before its end may begin
            if entry is not None:
                detach(info.mountpoint)                # in use: says so, and nothing has changed
                _mounted_elsewhere(entry.device, info, progress)
            answer(progress)
        if process is not None:
            select.select([process], [], [])         # ends with the process: its lock is free then, and a mount goes straight on
        elif not info.here:                          # of another pid namespace: its entry goes when it ends well
            until = time.monotonic() + NAMESPACE_S
            while seam.killed(info) and time.monotonic() < until:
                time.sleep(0.25)
        if seam.killed(info):
            raise SystemFailure(f"{info.mountpoint}: unmounted, but process {info.pid} was killed before everything was in the store; "
                                "the rest goes up at the next mount")
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing is lost, the upload goes on in the background") from None
    finally:
        if process is not None:
            os.close(process)


NAMESPACE_S = 10.0        # mount namespaces come and go (sandboxes, services that end)


def _mounted_elsewhere(device: str, info: seam.MountInfo, progress: seam.OnProgress) -> None:
    """Unmounted here, but the filesystem lives on for others: what there is goes to the store, and Busy says who they are."""
    from s3cfs.fuse.mountpoint import Busy
    from s3cfs.fuse.mounttable import elsewhere
    others = elsewhere(device)
    if others:
        seam.call(info.socket, "flush", {}, progress)
        until = time.monotonic() + NAMESPACE_S
        while others and all(pid for pid, _ in others) and time.monotonic() < until:
            time.sleep(0.25)
            others = elsewhere(device)
    if others:
        pid, path = others[0]
        where = f"{path} in the mount namespace of process {pid}" if pid else path
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise Busy(f"{info.mountpoint}: unmounted here, and all there was is in the store; but process {info.pid} goes on, "
                   f"since it is still mounted as {where}{more}")


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
