"""The C allocator told to give memory back: buffers of file data come and go by the hundred MiB, and glibc would keep them."""
from __future__ import annotations

import ctypes
import logging

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KIB = 1 << 10


def bound_the_allocator() -> None:
    """Few arenas, and large buffers straight from the kernel (mallopt(3)). On another libc nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for what, value in ((_M_MMAP_THRESHOLD, 32768 * _KIB), (_M_TRIM_THRESHOLD, 131072 * _KIB), (_M_ARENA_MAX, 2)):
        if not mallopt(what, value):
            log.debug("mallopt(%d) refused", what)
