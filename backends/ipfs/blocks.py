"""Blocks by their hash, in a datastore. What is read is compared with the hash that names it: neither the plugin nor the node does that.

Puts never look whether a block is there: it is put again, so that its age says when it was last wanted (collector.py). One that failed and
is repeated soon leaves out what it had done.
"""
from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable

from s3cfs.backends.ipfs.cid import RAW, Cid, digest_of
from s3cfs.backends.ipfs.crowd import Crowd
from s3cfs.backends.ipfs.dag import Block
from s3cfs.backends.ipfs.datastore import Datastore
from s3cfs.errors import Corrupt, StoreError, Temporary, Throttled

KEPT = 8                           # blocks that were read lately: reads of a part get all of a block
DONE_KEPT, DONE_S = 4096, 300.0    # blocks that a put which failed has stored, and for how long that is believed


class Blocks:
    """Thread-safe."""

    def __init__(self, datastore: Datastore, crowd: Crowd) -> None:
        self.datastore, self._crowd = datastore, crowd
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._done: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, blocks: Iterable[Block]) -> None:
        """All of them, several at once."""
        different = {block.digest: block for block in blocks}
        with self._lock:
            since = time.monotonic() - DONE_S
            left = [block for block in different.values() if self._done.get(block.digest, 0.0) < since]
        stored: list[bytes] = []

        def one(block: Block) -> None:
            self.put_one(block)
            stored.append(block.digest)

        try:
            self._crowd.each(one, left)
        except StoreError:
            with self._lock:
                self._done.update(dict.fromkeys(stored, time.monotonic()))
                while len(self._done) > DONE_KEPT:
                    self._done.popitem(last=False)
            raise
        with self._lock:
            for digest in different:
                self._done.pop(digest, None)

    def put_one(self, block: Block) -> None:
        """Once more after an error that may pass: many put at once into a folder that is new, which some servers stumble over."""
        key = self.datastore.block(block.digest)
        try:
            self.datastore.put(key, block.data)
        except Throttled:
            raise
        except Temporary:
            self.datastore.put(key, block.data)

    def get(self, digest: bytes) -> bytes:
        """NotFound. Corrupt: the store has other bytes there; the text names the block."""
        data, whole = self.look(digest)
        if not whole:
            raise Corrupt("get", self.datastore.block(digest), f"the store has other bytes than it is named by: block {named(digest)}")
        return data

    def look(self, digest: bytes) -> tuple[bytes, bool]:
        """What the store has there, and whether it is what it is named by; if not, the answer is that of a second look. NotFound."""
        with self._lock:
            known = self._kept.get(digest)
        if known is not None:
            return known, True
        key = self.datastore.block(digest)
        data = self.datastore.get(key)
        if digest_of(data) != digest:
            data = self.datastore.get(key)
            if digest_of(data) != digest:
                return data, False
        with self._lock:
            self._kept[digest] = data
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return data, True


def named(digest: bytes) -> str:
    """For messages: the block's CID, as of raw bytes; a node finds every block by it."""
    return str(Cid(1, RAW, digest))
