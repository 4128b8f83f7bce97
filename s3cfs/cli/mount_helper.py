"""`mount.s3cfs` and `umount.s3cfs`: what mount(8) and umount(8) call. Their arguments, their exit codes."""
from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import replace

from s3cfs.cli import arguments, mount, seam, streams, umount
from s3cfs.cli.progress import Progress
from s3cfs.errors import ConfigError, ExitCode, Interrupted, S3cfsError, SystemFailure, UsageError

CLONE_NEWNS = 0x00020000
USAGE, SYSTEM, INTERNAL, INTERRUPTED, FAILURE = 1, 2, 4, 8, 32      # mount(8)


def exit_code(error: S3cfsError) -> int:
    """mount(8)'s code for an error; the line on stderr still says which it was."""
    if isinstance(error, (UsageError, ConfigError)):
        return USAGE
    if isinstance(error, SystemFailure):
        return SYSTEM
    if isinstance(error, Interrupted):
        return INTERRUPTED
    return INTERNAL if error.exit_code == ExitCode.INTERNAL else FAILURE


def run(argv: Sequence[str]) -> int:
    made = arguments.Parser(prog="mount.s3cfs", usage="mount.s3cfs SRC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]",
                            description="Called by mount(8) for `mount -t s3cfs` and lines of fstab; see `s3cfs help mount`.")
    made.add_argument("source", metavar="SRC")
    made.add_argument("directory", metavar="DIR")
    made.add_argument("-s", dest="sloppy", action="store_true", help="ignore options that are not known")
    made.add_argument("-f", dest="fake", action="store_true", help="check everything that needs no store, do not mount")
    made.add_argument("-n", action="store_true", help="no mtab (there is none)")
    made.add_argument("-v", dest="verbose", action="store_true", help="say what is done")
    made.add_argument("-N", dest="namespace", metavar="NAMESPACE", help="mount namespace: a path or a process id")
    made.add_argument("-t", dest="type", metavar="TYPE", help="ignored")
    made.add_argument("-o", dest="fstab", action="append", default=[], metavar="OPTIONS")
    args = made.parse(argv)
    settings, mountpoint, options = mount.prepare(args.source, args.directory, args.fstab, {}, sloppy=args.sloppy)
    if args.namespace:
        enter_namespace(args.namespace)
    if args.verbose:
        print(f"mount.s3cfs: {settings.url} on {mountpoint}")
    if args.fake:
        return 0
    options = replace(options, fuse_options=(*_rights_of_mount(options.fuse_options), *options.fuse_options))
    streams.close_inherited()
    return _as_mount(seam.app().mount(settings, mountpoint, options))


def run_umount(argv: Sequence[str]) -> int:
    made = arguments.Parser(prog="umount.s3cfs", usage="umount.s3cfs DIR [-flnrv] [-N NAMESPACE]",
                            description="Called by umount(8); returns when everything is in the store. See `s3cfs help umount`.")
    made.add_argument("directory", metavar="DIR")
    made.add_argument("-l", "--lazy", dest="lazy", action="store_true", help="detach at once, upload in the background")
    for flag in "fnrv":
        made.add_argument(f"-{flag}", action="store_true", help="ignored")
    made.add_argument("-N", dest="namespace", metavar="NAMESPACE")
    made.add_argument("-t", dest="type", metavar="TYPE", help="ignored")
    args = made.parse(argv)
    if args.namespace:
        enter_namespace(args.namespace)
    with Progress() as progress:
        umount.unmount(args.directory, lazy=args.lazy, progress=progress)
    return 0


def _rights_of_mount(given: Sequence[str]) -> list[str]:
    """mount(8) says `nosuid` and `nodev` and keeps `suid` and `dev`, its defaults, to itself; libfuse's defaults are the other way round.
    Only root may have them. What an ordinary user may mount (`user` in fstab) comes with `nosuid,nodev` from mount(8).
    """
    return [] if os.geteuid() else [word for word in ("suid", "dev") if f"no{word}" not in given]


def _as_mount(code: int) -> int:
    """`app.mount` answers with s3cfs's own codes; those that mount(8) knows stay."""
    return code if code in (0, USAGE, SYSTEM, INTERNAL, INTERRUPTED, FAILURE) else USAGE if code == ExitCode.CONFIG else FAILURE


def enter_namespace(text: str) -> None:
    """setns(2) by hand: os.setns is younger than Python 3.11."""
    path = f"/proc/{text}/ns/mnt" if text.isdecimal() else text
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure(f"cannot open the namespace {path}: {error.strerror}") from None
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNS):
            raise SystemFailure(f"cannot enter the namespace {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)
