"""From chunks to the files they are in, and from inodes to their paths, for messages. No index serves such questions: each is one pass
over the names or the extents, whatever the number of things asked about."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from s3cfs.ids import ROOT_INO
from s3cfs.meta.types import Extent

NAMES_MAX = 20                 # of one file with hard links
DEPTH_MAX = 10_000


class Looks(Protocol):
    """Who answers such questions: Meta on the loop, Meta.reverse_beside from a thread."""

    async def users_of_many(self, chunks: Collection[int], limit: int) -> list[tuple[int, Extent]]: ...
    async def names_of_many(self, inos: Collection[int]) -> dict[int, list[tuple[int, bytes]]]: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """Bytes [start, end) of the file at `path` are bytes of the chunk."""

    chunk: int
    path: str
    start: int
    end: int


class Paths:
    """Paths of inodes; those of folders are remembered."""

    def __init__(self, meta: Looks) -> None:
        self._meta = meta
        self._folders: dict[int, str] = {ROOT_INO: ""}

    async def of(self, inos: Collection[int]) -> dict[int, list[str]]:
        """Every inode's paths, at most NAMES_MAX each; of one without a name a word in brackets."""
        names = await self._meta.names_of_many(inos)
        await self._learn({parent for ino in names for parent, _ in names[ino][:NAMES_MAX]})
        return {ino: [f"{self._folders[parent]}/{text(name)}" for parent, name in names.get(ino, [])[:NAMES_MAX]]
                or ["/" if ino == ROOT_INO else f"<inode {ino}, which has no name>"] for ino in inos}

    async def _learn(self, folders: set[int]) -> None:
        """One pass over the names per level of the tree, whatever the number of folders."""
        above: dict[int, tuple[int, bytes]] = {}
        wanted = folders - self._folders.keys()
        for _ in range(DEPTH_MAX):
            if not wanted:
                break
            found = await self._meta.names_of_many(wanted)
            above.update({ino: found[ino][0] for ino in found})
            for lost in wanted - found.keys():
                self._folders[lost] = f"<inode {lost}>"
            wanted = {above[ino][0] for ino in found} - above.keys() - self._folders.keys()
        for ino in folders:
            way: list[int] = []
            at = ino
            while at not in self._folders and at not in way:
                way.append(at)
                at = above.get(at, (ROOT_INO, b""))[0]
            if at in way:                                  # a ring of folders: the rows' check says so
                self._folders[at] = f"<inode {at}>"
                way = way[:way.index(at)]
            for one in reversed(way):
                parent, name = above.get(one, (ROOT_INO, b"?"))
                self._folders[one] = f"{self._folders[parent]}/{text(name)}"


def text(name: bytes) -> str:
    """A name for people: what is no UTF-8, and what a terminal would take for a command, escaped."""
    decoded = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)


async def hits(meta: Looks, chunks: Collection[int], limit: int, paths: Paths | None = None) -> list[Hit]:
    """Where the chunks are used, in the order of file and offset; neighbours in one chunk are joined. Not more than `limit`."""
    users = await meta.users_of_many(chunks, limit)
    names = await (paths or Paths(meta)).of({ino for ino, _ in users})
    joined: list[tuple[int, int, int, int]] = []
    for ino, extent in users:
        if joined and joined[-1][:2] == (ino, extent.chunk) and joined[-1][3] == extent.off:
            joined[-1] = (ino, extent.chunk, joined[-1][2], extent.off + extent.len)
        else:
            joined.append((ino, extent.chunk, extent.off, extent.off + extent.len))
    return [Hit(chunk, path, start, end) for ino, chunk, start, end in joined for path in names[ino]][:limit]
