"""Blocks and pins of a Kubo node, over its RPC. Every block that is read is verified; the node does that only when told to (HashOnRead)."""
from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from s3cfs.backends.ipfs import car, dag
from s3cfs.backends.ipfs.cid import RAW, Cid, digest_of
from s3cfs.backends.ipfs.crowd import Crowd
from s3cfs.backends.ipfs.rpc import Refused, Rpc
from s3cfs.backends.types import Body
from s3cfs.errors import Corrupt

log = logging.getLogger(__name__)

_UNREADABLE = ("could not find", "not found locally", "protobuf:", "unexpected EOF", "different hash")


class Leaf(NamedTuple):
    cid: Cid
    size: int                      # bytes


def is_unreadable(error: Refused) -> bool:
    """The node lacks a block, or cannot make sense of it. Its words, seen with blocks that were removed, cut short and changed."""
    return any(words in error.words for words in _UNREADABLE)


class Unusable(Corrupt):
    """A block that the node has not got, or not as it was, when it is asked twice. The text names it."""


class KuboBlocks:
    """Raises what `Rpc` raises, and Unusable."""

    def __init__(self, rpc: Rpc, crowd: Crowd) -> None:
        self._rpc, self._crowd = rpc, crowd

    def block(self, cid: Cid) -> bytes:
        for _ in range(2):
            data = self._raw(cid)
            if digest_of(data) == cid.digest:
                return data
        raise Unusable("", "", f"{self._rpc.address} holds other bytes under the name of block {cid}")

    def has(self, cid: Cid) -> bool:
        try:
            self._raw(cid)
        except Unusable:
            return False
        return True

    def _raw(self, cid: Cid) -> bytes:
        """As the node has it."""
        try:
            return self._rpc("block/get", str(cid), offline="true")
        except Refused as error:
            if is_unreadable(error):
                raise Unusable("", "", f"{self._rpc.address} lacks the block {cid}") from error
            raise

    def node(self, cid: Cid) -> dag.Node:
        data = self.block(cid)
        try:
            return dag.decode_node(data)
        except ValueError as error:
            raise Unusable("", "", f"the block {cid}: {error}") from error

    def read(self, cid: Cid, size: int, offset: int, end: int) -> bytes:
        """From `offset` to `end` of the file of `size` bytes with that root; 0 <= offset < end <= size.

        A leaf with other bytes, as many as it must have, is handed on and logged: what s3cfs stores is sealed in small parts, so less is
        lost than the whole leaf, and whoever looks at it says exactly what.
        """
        leaves, at = self._leaves(cid, size, offset, end)
        parts = self._crowd.each(self._leaf, leaves)
        last = at + sum(leaf.size for leaf in leaves[:-1])
        parts[-1] = parts[-1][:end - last]
        parts[0] = parts[0][offset - at:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _leaf(self, leaf: Leaf) -> bytes:
        try:
            data = self.block(leaf.cid)
        except Unusable as error:
            data = self._raw(leaf.cid)
            if len(data) == leaf.size:
                log.warning("%s", error.cause)
        if len(data) != leaf.size:
            raise Unusable("", "", f"the block {leaf.cid} has {len(data)} bytes, not {leaf.size}")
        return data

    def _leaves(self, cid: Cid, size: int, offset: int, end: int) -> tuple[list[Leaf], int]:
        """The leaves that hold `offset` to `end`, and where the first of them begins."""
        if cid.codec == RAW:
            return [Leaf(cid, size)], 0
        node = self.node(cid)
        if node.type != dag.FILE or node.data or node.filesize != size:
            raise Unusable("", "", f"the block {cid} is no node of a file of {size} bytes")
        found, first, at = list[Leaf](), 0, 0
        for link, below in zip(node.links, node.blocksizes, strict=True):
            if at < end and at + below > offset:
                leaves, begin = self._leaves(link.cid, below, max(0, offset - at), min(below, end - at))
                first = first if found else at + begin
                found += leaves
            at += below
        return found, first

    def add(self, blocks: Iterable[tuple[Cid, Body]]) -> None:
        """As one archive, which is sent as it comes; nothing of it is pinned yet. The node compares hashes, we the number that it took."""
        count = 0

        def counted() -> Iterator[tuple[Cid, Body]]:
            nonlocal count
            for block in blocks:
                count += 1
                yield block

        lines = self._rpc.lines("dag/import", file=car.archive([], counted()), pin_roots="false", stats="true")
        taken = [line["Stats"].get("BlockCount") for line in lines if isinstance(line.get("Stats"), dict)]
        if taken != [count]:
            raise Corrupt("", "", f"{self._rpc.address} took {taken} blocks instead of {count}")

    def add_one(self, digest: bytes, data: Body) -> None:
        """By its hash alone, which is how a node keeps it, whatever codec links to it say."""
        cid = Cid(1, RAW, digest)
        key = self._rpc.json("block/put", file=[data], cid_codec="raw", mhtype="sha2-256", pin="false").get("Key")
        if key != str(cid):
            raise Corrupt("", "", f"{self._rpc.address} stored block {key} instead of {cid}")

    def pin(self, root: Cid, name: str) -> None:
        """The node walks the graph first, so all of it is there. A graph has one pin in a node: this name takes the place of another."""
        pins = self._rpc.json("pin/add", str(root), recursive="true", name=name, offline="true").get("Pins")
        if pins != [str(root)]:
            raise Corrupt("", "", f"{self._rpc.address} pinned {pins} instead of {root}")

    def unpin(self, root: Cid, name: str) -> None:
        """Only a pin with this name; no such pin is success."""
        try:
            pinned: dict[str, Any] = self._rpc.json("pin/ls", str(root), type="recursive", names="true").get("Keys") or {}
            if any(pin.get("Name") == name for pin in pinned.values()):
                self._rpc("pin/rm", str(root), recursive="true")
        except Refused as error:
            if "not pinned" not in error.words:
                raise
