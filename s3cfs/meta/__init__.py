"""The metadata: SQLite, encrypted at rest, behind one class. See facade.py for the interface, engine.py for transactions."""
from __future__ import annotations

from s3cfs.meta.audit import Audit, Problem
from s3cfs.meta.changes import describe, merge_changesets
from s3cfs.meta.facade import Meta
from s3cfs.meta.paths import Hit, Paths, hits
from s3cfs.meta.snapshot import Snapshot
from s3cfs.meta.types import Chunk, ChunkGone, Counters, Extent, Inode, InodeColumns, OutboxSlice, Pack, Riding, Totals, Transaction

__all__ = [
           "Audit",
           "Chunk",
           "ChunkGone",
           "Counters",
           "Extent",
           "Hit",
           "Inode",
           "InodeColumns",
           "Meta",
           "OutboxSlice",
           "Pack",
           "Paths",
           "Problem",
           "Riding",
           "Snapshot",
           "Totals",
           "Transaction",
           "describe",
           "hits",
           "merge_changesets",
]
