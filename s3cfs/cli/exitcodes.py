"""What each exit code means, in words: for --help and docs/exit-codes.md (a test compares them)."""
from __future__ import annotations

from collections.abc import Iterable

from s3cfs.errors import ExitCode

MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "all well",
    ExitCode.USAGE: "the command was called wrongly",
    ExitCode.SYSTEM: "the operating system refused something",
    ExitCode.INTERNAL: "a bug of s3cfs; the message names a file to report",
    ExitCode.INTERRUPTED: "interrupted; nothing is lost",
    ExitCode.WRONG_PASSPHRASE: "wrong passphrase",
    ExitCode.ACCESS_DENIED: "the store refuses the credentials, or refuses them this operation",
    ExitCode.BUCKET_MISSING: "the bucket does not exist",
    ExitCode.WRONG_REGION: "the bucket is in another region",
    ExitCode.STORE_UNREACHABLE: "the store does not answer",
    ExitCode.CLOCK_SKEW: "this machine's clock differs too much from the store's",
    ExitCode.NO_FILESYSTEM: "there is no filesystem at this URL",
    ExitCode.FILESYSTEM_EXISTS: "there is a filesystem at this URL already",
    ExitCode.NEWER_FORMAT: "the filesystem was made by a newer s3cfs",
    ExitCode.DAMAGED: "an object's bytes are not what they must be",
    ExitCode.OBJECT_MISSING: "an object that must be there is missing",
    ExitCode.CACHE_UNUSABLE: "the cache folder cannot be made, read or written",
    ExitCode.CACHE_FULL: "the disk of the cache folder is full",
    ExitCode.MOUNTPOINT: "the mount point is missing, no folder, not empty or in use",
    ExitCode.ALREADY_MOUNTED: "this filesystem is mounted for writing already, here or elsewhere",
    ExitCode.CONFIG: "something in the authentication file, environment or options is wrong or missing",
    ExitCode.NO_FUSE: "FUSE is not available: no /dev/fuse, no fusermount3, or no permission",
    ExitCode.DIVERGED: "local state and store contradict each other",
    ExitCode.ROLLED_BACK: "the store is older than what this machine has seen",
    ExitCode.NOT_A_MOUNT: "no s3cfs is mounted there",
    ExitCode.STORE_FULL: "the store takes no more",
    ExitCode.UNSUPPORTED: "this store or system cannot do what was asked",
    ExitCode.MOUNT_FAILED: "the mount failed for another reason",
    ExitCode.NO_ANSWER: "the process behind the mount does not answer",
}

FSCK: dict[int, str] = {
    0: "no errors", 1: "errors corrected", 4: "errors left uncorrected", 8: "the check could not be done",
    16: "called wrongly, or a mistake in the configuration", 32: "interrupted",
}


def epilog(codes: Iterable[ExitCode]) -> str:
    """The "Exit codes" part of a --help."""
    shown = [ExitCode.OK, *codes, ExitCode.USAGE, ExitCode.CONFIG, ExitCode.SYSTEM, ExitCode.INTERNAL, ExitCode.INTERRUPTED]
    lines = [f"  {int(code):>2}  {MEANING[code]}" for code in sorted(set(shown))]
    return "exit codes:\n" + "\n".join(lines) + "\n  The full table is in docs/exit-codes.md.\n"
