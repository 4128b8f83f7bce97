"""Everything that goes wrong in words a user can act on, and the exit code each becomes.

Floors below the command line raise these; only `cli` turns them into an exit code and only `fuse` into an errno.
The text of an error is one line that says what happened and, where it can, what to change. It never holds a secret.
"""
from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of every s3cfs command but fsck (fsck(8)) and mount.s3cfs (mount(8)). Never re-used for something else."""

    OK = 0
    USAGE = 1                 # bad invocation
    SYSTEM = 2                # the operating system refused something not listed below
    INTERNAL = 4              # a bug of s3cfs
    INTERRUPTED = 8
    WRONG_PASSPHRASE = 10
    ACCESS_DENIED = 11        # the store refuses the credentials
    BUCKET_MISSING = 12
    WRONG_REGION = 13
    STORE_UNREACHABLE = 14    # no network, no server, time-out
    CLOCK_SKEW = 15
    NO_FILESYSTEM = 16
    FILESYSTEM_EXISTS = 17
    NEWER_FORMAT = 18
    DAMAGED = 19              # an object's bytes are not what they must be
    OBJECT_MISSING = 20
    CACHE_UNUSABLE = 21       # the cache folder cannot be created, read or written
    CACHE_FULL = 22
    MOUNTPOINT = 23           # missing, not a folder, or something is mounted there
    ALREADY_MOUNTED = 24      # this filesystem has a writer, here or elsewhere
    CONFIG = 25               # authentication file or options
    NO_FUSE = 26
    DIVERGED = 27             # local state and store contradict each other
    ROLLED_BACK = 28          # the store is older than what this machine has seen
    NOT_A_MOUNT = 29
    STORE_FULL = 30
    UNSUPPORTED = 31          # this store or system cannot do what was asked
    MOUNT_FAILED = 32
    NO_ANSWER = 33            # the process behind a mount is there and says nothing


class S3cfsError(Exception):
    """Base of all errors that are somebody's to act on. `exit_code` is what the command line answers."""

    exit_code: ExitCode = ExitCode.INTERNAL


class UsageError(S3cfsError):
    exit_code = ExitCode.USAGE


class SystemFailure(S3cfsError):
    exit_code = ExitCode.SYSTEM


class ConfigError(S3cfsError):
    exit_code = ExitCode.CONFIG


class WrongPassphrase(S3cfsError):
    exit_code = ExitCode.WRONG_PASSPHRASE


class NoFilesystem(S3cfsError):
    exit_code = ExitCode.NO_FILESYSTEM


class FilesystemExists(S3cfsError):
    exit_code = ExitCode.FILESYSTEM_EXISTS


class NewerFormat(S3cfsError):
    exit_code = ExitCode.NEWER_FORMAT


class Damaged(S3cfsError):
    """An object (or a part of it) is not what was written: seal, checksum, length or structure is wrong."""

    exit_code = ExitCode.DAMAGED


class ObjectMissing(S3cfsError):
    """An object that the history names is not in the store."""

    exit_code = ExitCode.OBJECT_MISSING


class CacheUnusable(S3cfsError):
    exit_code = ExitCode.CACHE_UNUSABLE


class CacheFull(S3cfsError):
    exit_code = ExitCode.CACHE_FULL


class MountpointError(S3cfsError):
    exit_code = ExitCode.MOUNTPOINT


class AlreadyMounted(S3cfsError):
    exit_code = ExitCode.ALREADY_MOUNTED


class NoFuse(S3cfsError):
    exit_code = ExitCode.NO_FUSE


class Diverged(S3cfsError):
    exit_code = ExitCode.DIVERGED


class Deposed(AlreadyMounted):
    """Another writer took over while this one was mounted; everything unsent is kept."""


class RolledBack(S3cfsError):
    exit_code = ExitCode.ROLLED_BACK


class NotAMount(S3cfsError):
    exit_code = ExitCode.NOT_A_MOUNT


class Interrupted(S3cfsError):
    exit_code = ExitCode.INTERRUPTED


# ---------------------------------------------------------------- errors of the store (raised by backends/, see base.py)

class StoreError(S3cfsError):
    """A call to the store failed. `operation`, `key` and the cause are part of the text.

    `retryable` says whether the same call may succeed later (remote/errand.py). `status`: of the HTTP answer; None: there was none.
    """

    retryable = False
    status: int | None = None
    exit_code = ExitCode.STORE_UNREACHABLE

    def __init__(self, operation: str, key: str, cause: object = "") -> None:
        self.operation, self.key, self.cause = operation, key, str(cause)
        super().__init__(operation, key, self.cause)

    def __str__(self) -> str:
        where = f" {self.key}" if self.key else ""
        return f"{self.operation}{where}: {self.cause or type(self).__name__}"


class NotFound(StoreError):
    """The object is not there."""

    exit_code = ExitCode.OBJECT_MISSING


class Exists(StoreError):
    """A create-only put found the key taken."""

    exit_code = ExitCode.FILESYSTEM_EXISTS


class Denied(StoreError):
    """The store refuses these credentials, or refuses them this operation."""

    exit_code = ExitCode.ACCESS_DENIED


class BucketMissing(StoreError):
    exit_code = ExitCode.BUCKET_MISSING


class WrongRegion(StoreError):
    exit_code = ExitCode.WRONG_REGION


class ClockSkew(StoreError):
    exit_code = ExitCode.CLOCK_SKEW


class Temporary(StoreError):
    """Network trouble, a time-out, 5xx: may succeed later. After a put or delete it is not known whether it happened."""

    retryable = True


class Throttled(Temporary):
    """429 or 503. `retry_after` is what the store asked for, in seconds, or None.

    `refused`: the store itself said that it did not carry the request out, so even a create-only put may be sent again.
    A 503 of some gateway on the way proves nothing.
    """

    def __init__(self, operation: str, key: str, cause: object = "", retry_after: float | None = None, *, refused: bool = False) -> None:
        super().__init__(operation, key, cause)
        self.retry_after = retry_after
        self.refused = refused


class Corrupt(StoreError):
    """The answer is not what the store holds (length or checksum of the transfer is wrong): try again."""

    retryable = True
    exit_code = ExitCode.DAMAGED


class StoreFull(StoreError):
    """The store (quota, disk) takes no more."""

    exit_code = ExitCode.STORE_FULL


class Unsupported(StoreError):
    """This store cannot do that."""

    exit_code = ExitCode.UNSUPPORTED


# ---------------------------------------------------------------- errors of filesystem operations (raised by vfs and below)

class FsError(S3cfsError):
    """An operation on the filesystem is refused; `fuse` maps each subclass to one errno."""

    exit_code = ExitCode.SYSTEM


class NoSuchEntry(FsError): ...           # ENOENT
class StaleInode(FsError): ...            # ESTALE
class EntryExists(FsError): ...           # EEXIST
class NotADirectory(FsError): ...         # ENOTDIR
class IsADirectory(FsError): ...          # EISDIR
class DirectoryNotEmpty(FsError): ...     # ENOTEMPTY
class InvalidArgument(FsError): ...       # EINVAL
class NameTooLong(FsError): ...           # ENAMETOOLONG
class NoAttribute(FsError): ...           # ENODATA
class NotPermitted(FsError): ...          # EPERM
class AccessRefused(FsError): ...         # EACCES
class FileTooLarge(FsError): ...          # EFBIG
class TooManyLinks(FsError): ...          # EMLINK
class NoSpace(FsError): ...               # ENOSPC
class ReadOnly(FsError): ...              # EROFS
class DataError(FsError): ...             # EIO: chunk damaged, store unreachable, a write that could not be kept
class NotSupported(FsError): ...          # ENOTSUP
class TooBig(FsError): ...                # E2BIG: xattr value
class RangeError(FsError): ...            # ERANGE
