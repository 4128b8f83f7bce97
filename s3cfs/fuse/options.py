"""How to mount: what the command line and fstab may choose about the kernel's side."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from s3cfs import limits

SUBTYPE = "s3cfs"
FSTYPE = f"fuse.{SUBTYPE}"
READY_TASKS = 99

# mount options that the kernel or libfuse understands as they stand
PASSED_ON = frozenset({"ro", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime", "noatime", "dirsync"})
PASSED_ON_WITH_VALUE = ("context=", "fscontext=", "defcontext=", "rootcontext=")


@dataclass(frozen=True, slots=True)
class FuseOptions:
    """`source` is shown as the device in the mount table. `extra` are mount options of PASSED_ON*, passed on as they are.

    The timeouts suit a mount that is the only writer of what it shows; a follower uses less. `dirty_bytes` bounds what
    the kernel holds back of written data, where its BDI can be told; 0 leaves it alone. `max_background`: requests the kernel sends
    ahead of anyone waiting, write-back and read-ahead; `max_waiting`: those with a caller that may wait for long (waiting.py).
    """

    source: str
    read_only: bool = False
    allow_other: bool = False
    writeback: bool = True
    nonempty: bool = False
    entry_timeout_s: float = limits.ENTRY_TIMEOUT_S
    attr_timeout_s: float = limits.ATTR_TIMEOUT_S
    negative_timeout_s: float = limits.ENTRY_TIMEOUT_S
    read_ahead_kib: int = limits.READ_AHEAD_KIB
    dirty_bytes: int = limits.KERNEL_DIRTY_BYTES
    max_background: int = limits.KERNEL_BACKGROUND
    max_waiting: int = limits.WAITING_REQUESTS
    loop: str = "hybrid"
    extra: Sequence[str] = field(default=())

    @property
    def max_tasks(self) -> int:
        """Requests handled at once: all that may wait, and some more for those that never do."""
        return self.max_background + self.max_waiting + READY_TASKS

    def mount_options(self) -> set[str]:
        """What libfuse takes, by way of pyfuse3, which knows ASCII only: other letters of the source are percent-encoded.

        Commas and backslashes are escaped, as libfuse's parser wants it. ValueError for what cannot be passed on.
        """
        source = _ascii(self.source).replace("\\", "\\\\").replace(",", "\\,")
        chosen = {"default_permissions", f"fsname={source}", f"subtype={SUBTYPE}"}
        if self.allow_other:
            chosen.add("allow_other")
        if self.read_only:
            chosen.add("ro")
        for option in self.extra:
            if not option.isascii() or (option not in PASSED_ON and not option.startswith(PASSED_ON_WITH_VALUE)):
                raise ValueError(f"not an option that can be passed on to the kernel: {option}")
            chosen.add(option)
        return chosen


def _ascii(text: str) -> str:
    return "".join(c if c.isascii() else "".join(f"%{byte:02X}" for byte in os.fsencode(c)) for c in text)
