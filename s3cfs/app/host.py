"""Which machine and process this is, precisely enough to know whether another one of this very machine is dead."""
from __future__ import annotations

import os
import socket
from pathlib import Path

from s3cfs.history.office import Host


def this_host() -> Host:
    pid = os.getpid()
    return Host(_text("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid"), pid, _start_ticks(pid), socket.gethostname())


def process_alive(host: Host) -> bool:
    """Whether that process of this machine still runs; a number that was used again is another process."""
    return _start_ticks(host.pid) == host.start_ticks


def _start_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])      # a zombie has ended


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
