"""Names in a Kubo node: its MFS, a tree of folders that are blocks themselves.

Folders are read as blocks, and not by files/ls: that opens every object in them, so one that is damaged would hide all others, and a
small one is read whole for its size alone.

Changes are one at a time for each of our processes. Kubo writes a folder and those above it one after the other and not as a whole: of two
changes at once the one that is written last may put an older state of the other's folder on the disk. In its memory all is right, so only
a node that dies in that moment would lose a name that it has acknowledged. (Read in boxo 0.40, mfs/dir.go; not seen in 45 kills.)
"""
from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from s3cfs.backends.ipfs import dag
from s3cfs.backends.ipfs.cid import RAW, Cid
from s3cfs.backends.ipfs.crowd import Crowd
from s3cfs.backends.ipfs.dag import Link
from s3cfs.backends.ipfs.kubo_blocks import KuboBlocks, Unusable, is_unreadable
from s3cfs.backends.ipfs.rpc import Refused, Rpc
from s3cfs.errors import Corrupt

FOLDER_ATTEMPTS = 8                # processes that make the same new folders at once refuse each other, each folder once
KNOWN_MAX = 10_000                 # nodes of which is kept what they are


class Found(NamedTuple):
    """An object. `size` None: the node cannot read its root."""

    cid: Cid
    size: int | None


class Entry(NamedTuple):
    """In a folder. `size` None: a folder itself."""

    name: str
    size: int | None


class Names:
    """Paths begin with '/' and end without. Raises what `Rpc` and `KuboBlocks` raise."""

    def __init__(self, rpc: Rpc, blocks: KuboBlocks, crowd: Crowd) -> None:
        self._rpc, self._blocks, self._crowd = rpc, blocks, crowd
        self._changing = threading.Lock()
        self._known: OrderedDict[Cid, int | None] = OrderedDict()      # dag-pb: the size of a file, None: a folder
        self._knowing = threading.Lock()

    def look(self, path: str) -> Found | None:
        """What has this name; None: nothing, or a folder."""
        try:
            found = self._rpc.json("files/stat", path)
        except Refused as error:
            if not is_unreadable(error):
                if _is_absent(error):
                    return None
                raise
            above, _, name = path.rpartition("/")
            cid = next((link.cid for link in self._links(above or "/") if link.name == name), None)
            return None if cid is None else Found(cid, None)
        return None if found.get("Type") == "directory" else Found(self._cid(found), int(found.get("Size", 0)))

    def entries(self, path: str) -> list[Entry]:
        """What lies directly in a folder; nothing in one that is not there. Where a root cannot be read the size is that of all blocks."""
        links = self._links(path)
        sizes = self._crowd.each(self._size, links)
        return [Entry(link.name, size) for link, size in zip(links, sizes, strict=True)]

    def _size(self, link: Link) -> int | None:
        if link.cid.codec == RAW:
            return link.tsize
        if link.cid.version == 0:                  # as MFS makes folders, and s3cfs no object
            return None
        with self._knowing:
            if link.cid in self._known:
                return self._known[link.cid]
        try:
            node = self._blocks.node(link.cid)
        except Unusable:
            return link.tsize
        size = node.filesize if node.type == dag.FILE else None
        with self._knowing:
            self._known[link.cid] = size
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return size

    def give(self, path: str, root: Cid, *, instead: bool = False) -> bool:
        """False: it is taken, by an object or a folder, or a folder above it is an object. `instead`: of the object that has it."""
        for _ in range(FOLDER_ATTEMPTS):
            try:
                with self._changing:
                    self._rpc("files/cp", f"/ipfs/{root}", path, parents="true", offline="true", force="true" if instead else "false",
                              again=False)
                return True
            except Refused as error:
                if "already has entry by that name" in error.words or "not a file" in error.words:
                    return False
                if "file already exists" not in error.words:       # of a folder that somebody else made meanwhile, or of an object there
                    raise
        return False

    def take(self, path: str, found: Found) -> None:
        """The name of an object goes; absent is success."""
        try:
            with self._changing:
                # by force what cannot be read, since the node opens what it removes; force would take a folder too
                self._rpc("files/rm", path, force="true" if found.size is None else "false")
                self._rpc("files/flush", path.rpartition("/")[0])      # files/rm alone is on the disk some seconds later
        except Refused as error:
            if not _is_absent(error):
                raise

    def _links(self, path: str) -> list[Link]:
        """Of a folder, whatever it is made of; none: it is not there."""
        try:
            found = self._rpc.json("files/stat", path)
        except Refused as error:
            if _is_absent(error):
                return []
            raise
        return list(self._folder(self._cid(found))) if found.get("Type") == "directory" else []

    def _folder(self, cid: Cid) -> Iterator[Link]:
        """One block; or, when there is much in it, a tree of shards, whose links have their place as hex digits before the name."""
        node = self._blocks.node(cid)
        if node.type == dag.DIRECTORY:
            yield from node.links
        elif node.type == dag.HAMT_SHARD:
            digits = len(f"{node.fanout - 1:X}")
            for link in node.links:
                if len(link.name) > digits:
                    yield link._replace(name=link.name[digits:])
                else:
                    yield from self._folder(link.cid)
        else:
            raise Unusable("", "", f"the block {cid} is no folder")

    def _cid(self, found: dict[str, object]) -> Cid:
        try:
            return Cid.parse(str(found.get("Hash")))
        except ValueError as error:
            raise Corrupt("", "", f"{self._rpc.address}: {error}") from error


def _is_absent(error: Refused) -> bool:
    return "does not exist" in error.words or "Not a directory" in error.words
