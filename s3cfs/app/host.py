"""Which machine and process this is, precisely enough to know whether another one of this very machine is dead."""
from __future__ import annotations

import os
import socket
from pathlib import Path

from s3cfs.history.log import Host


def this_host() -> Host:
    """Without what names machine and process where /proc is not of this process's own world: numbers read there would mean others."""
    pid, name = os.getpid(), socket.gethostname()
    world = _link("/proc/self/ns/pid")
    if not world or _link("/proc/self") != str(pid):
        return Host(pid=pid, name=name)
    world += " " + _link("/proc/self/ns/time")             # start times are counted in it
    return Host(_text("/proc/sys/kernel/random/boot_id"), world, pid, _start_ticks(pid) or 0, name)


def process_alive(host: Host) -> bool:
    """False only when it is certain that that process of this machine has ended. A number that was used again is another process."""
    if host.pid <= 0:
        return True                                        # not said
    if not _exists(host.pid):
        return False
    ticks = _start_ticks(host.pid)
    if ticks is None:                                      # hidden from this user (hidepid), or it ended just now
        return _exists(host.pid)
    return ticks == host.start_ticks or (ticks > 0 and not host.start_ticks)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass                                               # another user's
    return True


def _start_ticks(pid: int) -> int | None:
    """Since boot; 0 of a zombie, which has ended; None when it cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if fields[0] in "ZX" else int(fields[19])


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
