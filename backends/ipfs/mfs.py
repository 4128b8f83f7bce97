"""Names in a Kubo node: its MFS, a tree of folders that are blocks themselves.

Folders are read as blocks, offline, and files/... is asked for folders only: it opens what it names, and files/ls all that is in a folder.
A node with a net waits for ever then for a root that is missing, with the folder locked, and all names stand still until it is started
anew (seen with Kubo 0.42). Without a net one such object would hide all others of its folder.

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
from s3cfs.backends.ipfs.kubo_blocks import KuboBlocks, Unusable
from s3cfs.backends.ipfs.rpc import Refused, Rpc
from s3cfs.errors import Corrupt

FOLDER_ATTEMPTS = 8                # processes that make the same new folders at once refuse each other, each folder once
LINKS_KEPT = 50_000                # of folders, in memory: some 300 bytes each
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
        self._nodes: OrderedDict[Cid, dag.Node] = OrderedDict()       # of folders
        self._knowing = threading.Lock()

    def look(self, path: str) -> Found | None:
        """What has this name; None: nothing, or a folder."""
        above, _, name = path.rpartition("/")
        link = next((link for link in self._links(above or "/") if link.name == name), None)
        if link is None:
            return None
        try:
            size = self._size(link)
        except Unusable:
            return Found(link.cid, None)
        return None if size is None else Found(link.cid, size)

    def entries(self, path: str) -> list[Entry]:
        """What lies directly in a folder; nothing in one that is not there. Where a root cannot be read the size is that of all blocks."""
        def size_of(link: Link) -> int | None:
            try:
                return self._size(link)
            except Unusable:
                return link.tsize

        links = self._links(path)
        return [Entry(link.name, size) for link, size in zip(links, self._crowd.each(size_of, links), strict=True)]

    def _size(self, link: Link) -> int | None:
        """None: a folder. Unusable: its block would have to say that."""
        if link.cid.codec == RAW:
            return link.tsize
        if link.cid.version == 0:                  # as MFS makes folders, and s3cfs no object
            return None
        with self._knowing:
            if link.cid in self._known:
                return self._known[link.cid]
        node = self._blocks.node(link.cid)
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

    def take(self, path: str) -> None:
        """The name of an object goes; absent is success. By force, since else the node opens it; force would take a folder, too."""
        with self._changing:
            self._rpc("files/rm", path, force="true")
            self._rpc("files/flush", path.rpartition("/")[0])          # files/rm alone is on the disk some seconds later

    def _links(self, path: str) -> list[Link]:
        """Of a folder, whatever it is made of; none: it is not there. Once more where it was changed and collected under our hands."""
        for last in (False, True):
            try:
                found = self._rpc.json("files/stat", path)
                return list(self._folder(self._cid(found))) if found.get("Type") == "directory" else []
            except Refused as error:
                if _is_absent(error):
                    return []
                raise
            except Unusable:
                if last:
                    raise
        raise AssertionError

    def _folder(self, cid: Cid) -> Iterator[Link]:
        """One block; or, when there is much in it, a tree of shards, whose links have their place as hex digits before the name."""
        node = self._folder_node(cid)
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

    def _folder_node(self, cid: Cid) -> dag.Node:
        """A block never changes: of a folder that was changed in one place most are known."""
        with self._knowing:
            known = self._nodes.get(cid)
            if known is not None:
                self._nodes.move_to_end(cid)
                return known
        node = self._blocks.node(cid)
        with self._knowing:
            self._nodes[cid] = node
            while len(self._nodes) > 1 and sum(len(one.links) for one in self._nodes.values()) > LINKS_KEPT:
                self._nodes.popitem(last=False)
        return node

    def _cid(self, found: dict[str, object]) -> Cid:
        try:
            return Cid.parse(str(found.get("Hash")))
        except ValueError as error:
            raise Corrupt("", "", f"{self._rpc.address}: {error}") from error


def _is_absent(error: Refused) -> bool:
    return "does not exist" in error.words or "Not a directory" in error.words
