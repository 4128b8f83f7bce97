"""What the kernel wants to see: errno numbers for our errors, and its attribute structures for our inodes."""
from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from pyfuse3 import EntryAttributes, InodeT, ModeT

from s3cfs import errors

if TYPE_CHECKING:
    from s3cfs.meta.types import Inode

log = logging.getLogger(__name__)

SECTOR_BYTES = 512    # the unit of st_blocks, whatever st_blksize says

ERRNO: dict[type[errors.FsError], int] = {
    errors.NoSuchEntry: errno.ENOENT,
    errors.StaleInode: errno.ESTALE,
    errors.EntryExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.DirectoryNotEmpty: errno.ENOTEMPTY,
    errors.InvalidArgument: errno.EINVAL,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.NoAttribute: errno.ENODATA,
    errors.NotPermitted: errno.EPERM,
    errors.AccessRefused: errno.EACCES,
    errors.FileTooLarge: errno.EFBIG,
    errors.TooManyLinks: errno.EMLINK,
    errors.NoSpace: errno.ENOSPC,
    errors.ReadOnly: errno.EROFS,
    errors.DataError: errno.EIO,
    errors.NotSupported: errno.ENOTSUP,
    errors.TooBig: errno.E2BIG,
    errors.RangeError: errno.ERANGE,
}

# what is somebody's mistake or a normal answer; the others are worth more than a debug line
_QUIET = frozenset(ERRNO) - {errors.DataError, errors.NoSpace, errors.StaleInode}


def errno_of(error: BaseException, operation: str, subject: object) -> int:
    """The errno that answers `error`, after a line in the log that says operation and inode (names only at debug).

    ENOENT and ESTALE never stand for trouble: a sync tool would take it for a deletion and spread it.
    """
    if isinstance(error, errors.FsError):
        for kind in type(error).__mro__:
            number = ERRNO.get(kind)
            if number is not None:
                level = logging.DEBUG if kind in _QUIET else logging.WARNING
                if log.isEnabledFor(level):
                    log.log(level, "op=%s on=%s answer=%s cause=%s", operation, subject, errno.errorcode[number], error)
                return number
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        log.error("op=%s on=%s answer=ENOSPC cause=%s", operation, subject, error)
        return errno.ENOSPC
    if isinstance(error, errors.S3cfsError):        # the store's errors should have become DataError below
        log.error("op=%s on=%s answer=EIO cause=%s: %s", operation, subject, type(error).__name__, error)
    else:
        log.error("op=%s on=%s answer=EIO: unexpected", operation, subject, exc_info=error)
    return errno.EIO


def entry_of(inode: Inode, entry_timeout_s: float, attr_timeout_s: float) -> EntryAttributes:
    """`inode` as the kernel takes it. The generation stays 0, since inode numbers are never used again."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(inode.ino)
    entry.entry_timeout = entry_timeout_s
    entry.attr_timeout = attr_timeout_s
    entry.st_mode = ModeT(inode.mode)
    entry.st_nlink = inode.nlink
    entry.st_uid = inode.uid
    entry.st_gid = inode.gid
    entry.st_rdev = inode.rdev
    entry.st_size = inode.size
    entry.st_blocks = (inode.alloc + SECTOR_BYTES - 1) // SECTOR_BYTES
    entry.st_atime_ns = inode.atime_ns
    entry.st_mtime_ns = inode.mtime_ns
    entry.st_ctime_ns = inode.ctime_ns
    return entry


def absent(timeout_s: float) -> EntryAttributes:
    """A negative entry: the kernel remembers that the name is not there."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(0)
    entry.entry_timeout = entry.attr_timeout = timeout_s
    return entry
