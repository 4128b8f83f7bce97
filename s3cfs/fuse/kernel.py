"""What is told to the kernel outside of answers: the sizes of its read-ahead and of its dirty data (its requests: helper.py)."""
from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)

BDI = Path("/sys/class/bdi")


def tune(device: str, *, read_ahead_kib: int, dirty_bytes: int) -> dict[str, str]:
    """Set what sysfs has for this device ("major:minor"); returns what was set. Only root may: others keep the defaults.

    Reads are no larger than the read-ahead, so with a store behind it decides the speed of a sequential read. What the kernel
    holds back of written data is neither in a transaction nor bounded by us otherwise.
    """
    bdi = BDI / device
    wanted = [(bdi / "read_ahead_kb", str(read_ahead_kib))]
    if dirty_bytes:
        wanted += [(bdi / "max_bytes", str(dirty_bytes)), (bdi / "strict_limit", "1")]
    done = {}
    for path, value in wanted:
        try:
            path.write_text(value)
        except OSError as error:
            log.debug("%s=%s not set: %s", path, value, error)
        else:
            done[path.name] = value
    return done
