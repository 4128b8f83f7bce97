"""`python -m s3cfs` is `s3cfs`. This module and the package's own `__init__` are all that is imported before an interrupt is minded."""
from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the whole `signal` pulls in enum, and this must come first
import os
import sys

FSCK_INTERRUPTED, INTERRUPTED = 32, 8      # ExitCode.INTERRUPTED, and fsck(8)'s; errors.py is not imported yet


def entry(name: str) -> int:
    """Run the entry point `name` of s3cfs.cli. ^C while modules are imported: one line and the right code; after the command: nothing."""
    interrupted = FSCK_INTERRUPTED if name == "fsck_main" or (name == "main" and sys.argv[1:2] == ["fsck"]) else INTERRUPTED

    def leave(*_: object) -> None:
        try:
            os.write(2, b"s3cfs: interrupted\n")
        finally:
            os._exit(interrupted)

    minded = signal.getsignal(signal.SIGINT) is signal.default_int_handler      # not under nohup, and not in a background job
    if minded:
        signal.signal(signal.SIGINT, leave)
    from s3cfs import cli
    from s3cfs.cli import streams
    streams.note_inherited()
    try:
        if minded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = int(getattr(cli, name)())
    except KeyboardInterrupt:
        leave()
    if minded:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == interrupted:
        os._exit(code)        # Python's own end would be by SIGINT if the interrupt came while it ran exec(), as for a dataclass
    return code


def main() -> int:
    """`s3cfs`"""
    return entry("main")


def mkfs_main() -> int:
    """`mkfs.s3cfs`"""
    return entry("mkfs_main")


def mount_main() -> int:
    """`mount.s3cfs`"""
    return entry("mount_main")


def umount_main() -> int:
    """`umount.s3cfs`"""
    return entry("umount_main")


def fsck_main() -> int:
    """`fsck.s3cfs`"""
    return entry("fsck_main")


if __name__ == "__main__":
    sys.exit(main())
