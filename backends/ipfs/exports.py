"""What a store of IPFS blocks offers beside the contract of a backend: a place for files as any node reads them, not sealed, not ours."""
from __future__ import annotations

from typing import Protocol, runtime_checkable

from s3cfs.backends.ipfs.cid import Cid
from s3cfs.backends.types import Body


@runtime_checkable
class Exports(Protocol):
    """Both raise errors of the store, and do not retry. Several threads call `put_block` at once."""

    def put_block(self, digest: bytes, data: Body) -> None:
        """Store a block; returns when the store acknowledges it. One that is there already is success."""

    def keep_root(self, cid: Cid, name: str) -> None:
        """All blocks below `cid` are there: keep them. `name` is for people, one line, and may be that of an earlier export."""
