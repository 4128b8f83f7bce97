"""`s3cfs umount MNT`: the process that serves the mount uploads what is left; this command shows how far it is and waits."""
from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
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

`umount` and `fusermount3 -u` work too: they return at once and the process goes on uploading before it ends.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Unmount a filesystem. Returns when everything is in the store.",
        epilog=EPILOG + exitcodes.epilog((ExitCode.NOT_A_MOUNT, ExitCode.MOUNTPOINT, ExitCode.STORE_UNREACHABLE)))
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
    path = os.path.abspath(mountpoint)
    control = seam.control()
    try:
        info = control.find(path)
    except NotAMount:
        if not is_dead_mount(path):
            raise
        detach(path)
        say(f"s3cfs: the process behind {path} was gone; what it had not uploaded is in the local state and goes up at the next mount")
        return
    process = _open_process(info.pid)
    try:
        control.unmount(path, lazy=lazy)
        if lazy:
            return
        with contextlib.suppress(DaemonGone):            # it had nothing to do any more
            control.call(info.socket, "wait", {}, progress)
        if process is not None:
            select.select([process], [], [])         # ends with the process: its lock is free then, and a mount goes straight on
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing is lost, the upload goes on in the background while that process lives") from None
    finally:
        if process is not None:
            os.close(process)


def is_dead_mount(path: str) -> bool:
    """Whether an s3cfs is in the mount table at `path` (asked for without touching it: its process may be gone)."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            return any(mounted == path and kind in ("fuse.s3cfs", "fuse") and "s3cfs" in f"{kind} {source}"
                       for mounted, kind, source in map(_mount, table))
    except OSError:
        return False


def _mount(line: str) -> tuple[str, str, str]:
    left, _, right = line.partition(" - ")
    kind, source, *_ = (*right.split(), "", "")
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), (left.split() + [""] * 5)[4]), kind, source


def detach(path: str) -> None:
    """Take a dead mount away. `-i`: not through umount.s3cfs, which is this."""
    command = ["umount", "-i", "-l", "--", path] if os.geteuid() == 0 else ["fusermount3", "-u", "-z", "--", path]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemFailure(f"cannot run {command[0]}: {error.strerror}") from None
    if done.returncode:
        raise SystemFailure(f"cannot detach {path}: {done.stderr.strip() or f'{command[0]} failed'}")


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
