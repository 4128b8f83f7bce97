"""`s3cfs mount URL MNT`"""
from __future__ import annotations

import os
from collections.abc import Sequence

from s3cfs.cli import arguments, exitcodes, fstab, seam, streams
from s3cfs.config import MountOptions, Settings, load
from s3cfs.errors import ExitCode, UsageError

EPILOG = """\
-o takes what fstab holds: every option above by its name (allow_other, cachesize=20G, authfile=/etc/s3cfs/auth.ini); ro, nodev,
nosuid, noexec, noatime, context= and their like go on to the kernel; rw, relatime, _netdev, nofail, noauto, user, x-*, comment=
are accepted and ignored. A flag that the file or the environment sets is switched off by --no-NAME (--no-allow-other).

examples:
  s3cfs mount s3c://s3.example.com/my-bucket/home /mnt/home
      Mount; returns when the mount answers.
  s3cfs mount --sync remote --cachesize 50G s3://eu-central-1/my-bucket /mnt/data
      fsync() returns when the data is in the store.
  s3cfs mount --fg --allow-other local:///srv/store /mnt/test
      In the foreground, for all users.
  In /etc/fstab (after `make install`):
  s3c://s3.example.com/my-bucket/home  /mnt/home  s3cfs  _netdev,nofail,authfile=/etc/s3cfs/auth.ini,allow_other  0 0

On another machine, or after the cache folder was lost, URL and passphrase are all that is needed.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, usage=f"{prog} [options] URL MOUNTPOINT",
        description="Mount a filesystem. Returns when the mount answers and leaves a process behind (but see --fg).",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.WRONG_PASSPHRASE, ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.WRONG_REGION, ExitCode.STORE_UNREACHABLE,
            ExitCode.CLOCK_SKEW, ExitCode.NO_FILESYSTEM, ExitCode.NEWER_FORMAT, ExitCode.DAMAGED, ExitCode.OBJECT_MISSING,
            ExitCode.CACHE_UNUSABLE, ExitCode.CACHE_FULL, ExitCode.MOUNTPOINT, ExitCode.ALREADY_MOUNTED, ExitCode.NO_FUSE,
            ExitCode.DIVERGED, ExitCode.ROLLED_BACK, ExitCode.UNSUPPORTED, ExitCode.MOUNT_FAILED)))
    made.add_argument("url", metavar="URL", help="where the filesystem is")
    made.add_argument("mountpoint", metavar="MOUNTPOINT", help="an empty folder")
    made.add_argument("-o", dest="fstab", action="append", default=[], metavar="OPTS", help="options as in fstab, separated by commas")
    arguments.add_options(made)
    arguments.add_store(made)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    settings, mountpoint, options = prepare(args.url, args.mountpoint, args.fstab, arguments.given(args))
    streams.close_inherited()
    return seam.app().mount(settings, mountpoint, options)


def prepare(url: str, mountpoint: str, fstab_options: Sequence[str], given: dict[str, str | bool | None],
            sloppy: bool = False) -> tuple[Settings, str, MountOptions]:
    """Everything `app.mount` takes; an option of the command line wins over the same in -o."""
    if not mountpoint:
        raise UsageError("the mount point is missing")
    parsed = fstab.parse(fstab_options, sloppy)
    said = {**parsed.given, **{name: value for name, value in given.items() if value is not None}}
    settings, options = load(url, said, fuse_options=tuple(parsed.passed), ask=arguments.asker())
    return settings, os.path.abspath(mountpoint), options
