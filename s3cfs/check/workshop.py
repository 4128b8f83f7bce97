"""What a repair works with: a node in office, without its files. `app` wires it."""
from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.journal import Journal
from s3cfs.doors import Doors
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.meta import Meta
from s3cfs.remote import Remote


@dataclass(slots=True)
class Workshop:
    doors: Doors
    remote: Remote
    meta: Meta
    journal: Journal
    cache: PackCache
    codec: ChunkCodec
    epoch: int                                     # of the node's time in office
    lock: trio.Lock                                # held while rows come to point at bytes in the journal
    begin: Callable[[], None]                      # before rows change; raises when nothing may be written
    flush: Callable[[], Awaitable[None]]           # everything changed so far is a commit in the store
    checkpoint: Callable[[], Awaitable[int]]       # write one now; its commit. Raises when it could not be written
    reload: Callable[[], Awaitable[None]]          # load everything from the store alone, elsewhere; raises what a mount would
