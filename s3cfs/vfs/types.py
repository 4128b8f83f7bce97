"""The nouns of the operations: who asks, what is to be set, what statfs answers."""
from __future__ import annotations

from dataclasses import dataclass

RENAME_NOREPLACE = 1        # renameat2(2)
RENAME_EXCHANGE = 2
XATTR_CREATE = 1            # setxattr(2)
XATTR_REPLACE = 2


@dataclass(slots=True)
class Caller:
    """On whose behalf an operation runs.

    `groups` are the supplementary groups; None = not known, then the kernel (default_permissions) has judged already all that
    depends on them. Permission bits are never checked here: that is the kernel's part, or the gateway's.
    """

    uid: int
    gid: int
    pid: int = 0
    umask: int = 0
    groups: frozenset[int] | None = None

    def may_keep_setgid(self, gid: int) -> bool:
        """Whether it may put (or leave) a set-group-ID bit on something of that group."""
        return self.uid == 0 or self.groups is None or gid == self.gid or gid in self.groups


ROOT_CALLER = Caller(0, 0)


@dataclass(slots=True)
class SetAttr:
    """What setattr is to set; None = leave it. `ctime_ns` is what a kernel with a write-back cache keeps itself."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


@dataclass(slots=True)
class StatFs:
    block_size: int
    blocks: int
    blocks_free: int
    inodes: int
    inodes_free: int
    name_max: int
