"""The C allocator told how to hold memory: buffers of file data come and go by the hundred MiB.

One arena for all threads, so what one frees another uses, and its top given back when much is free. Measured, writing 1.2 GiB with
fsync on two cores: as glibc comes, threads' arenas grow apart; with large buffers straight from the kernel
(threshold 256 KiB) their pages are zeroed again and again: 97-218 MiB/s and 200 MB at most; with this: 238-329 MiB/s and 240 MB.

What is free then lies between what is used, and after a burst the process kept 299 MiB for nothing. They are given back once the burst
is over: 101 MiB stay. That takes up to 80 ms, in which other threads wait for memory; so not while there is work.
"""
from __future__ import annotations

import ctypes
import gc
import logging

log = logging.getLogger(__name__)

QUIET_BYTES = 8 << 20              # so little through memory between two looks is no burst

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KIB = 1 << 10


def bound_the_allocator() -> None:
    """mallopt(3). On another libc nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for what, value in ((_M_MMAP_THRESHOLD, 32768 * _KIB), (_M_TRIM_THRESHOLD, 65536 * _KIB), (_M_ARENA_MAX, 1)):
        if not mallopt(what, value):
            log.debug("mallopt(%d) refused", what)


def give_back() -> None:
    """malloc_trim(3): all pages that are free, wherever they lie. On another libc nothing happens."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def keep_the_start() -> None:
    """Once, when a mount is ready: what was imported and built until now is never looked through for garbage again. A full collection of
    it takes 47 ms (88,000 objects), in which nothing else happens."""
    gc.collect()
    gc.freeze()


class Burst:
    """Whether one has just ended."""

    def __init__(self) -> None:
        self._seen_bytes = 0
        self._going_on = False

    def is_over(self, moved_bytes: int) -> bool:
        """To be asked every few seconds, with how much has gone through memory since the start: True once after each burst."""
        quiet = moved_bytes - self._seen_bytes < QUIET_BYTES
        self._seen_bytes = moved_bytes
        was_going_on, self._going_on = self._going_on, not quiet
        return quiet and was_going_on
