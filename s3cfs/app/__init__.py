"""The only place that constructs: everything below takes what it needs as an argument and is wired here.

`mkfs`, `mount`, `fsck`, `probe`, `measure` and `dump` are what the command line calls; `node.open_node` is a filesystem without a kernel.
"""
from __future__ import annotations

from .fsck import FsckResult, fsck
from .make import MkfsResult, mkfs
from .measure import MeasureResult, measure
from .mount import mount
from .store import dump
from .verdict import ProbeResult, probe

__all__ = ["FsckResult", "MeasureResult", "MkfsResult", "ProbeResult", "dump", "fsck", "measure", "mkfs", "mount", "probe"]
