"""The commands, a file each. Nothing heavy is imported before a command needs it: `s3cfs stat` and `--help` answer at once."""
from __future__ import annotations

import sys
from collections.abc import Sequence

from s3cfs.cli.run import guarded


def main(argv: Sequence[str] | None = None) -> int:
    """The console script `s3cfs`."""
    from s3cfs.cli import commands
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded("s3cfs", commands.dispatch, words, commands.exit_codes_of(words))


def mkfs_main(argv: Sequence[str] | None = None) -> int:
    """`mkfs.s3cfs` is `s3cfs mkfs`, and takes what mkfs(8) hands on."""
    from s3cfs.cli import commands
    return guarded("mkfs.s3cfs", lambda args: commands.dispatch(["mkfs", *args]), sys.argv[1:] if argv is None else argv)


def mount_main(argv: Sequence[str] | None = None) -> int:
    """`mount.s3cfs SRC DIR [-sfnv] [-N ns] [-o OPTS]`, called by mount(8)."""
    from s3cfs.cli import mount_helper
    return guarded("mount.s3cfs", mount_helper.run, sys.argv[1:] if argv is None else argv, mount_helper.exit_code)


def umount_main(argv: Sequence[str] | None = None) -> int:
    """`umount.s3cfs DIR [-flnrv]`, called by umount(8)."""
    from s3cfs.cli import mount_helper
    return guarded("umount.s3cfs", mount_helper.run_umount, sys.argv[1:] if argv is None else argv, mount_helper.exit_code)


def fsck_main(argv: Sequence[str] | None = None) -> int:
    """`fsck.s3cfs URL`, called by fsck(8)."""
    from s3cfs.cli import fsck
    return guarded("fsck.s3cfs", fsck.run_helper, sys.argv[1:] if argv is None else argv, fsck.exit_code)


__all__ = ["fsck_main", "main", "mkfs_main", "mount_main", "umount_main"]
