"""What a Kubo of ours (kubo.py) holds, and what it says when it is asked for what is not there."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from s3cfs.backends.ipfs import dag
from s3cfs.backends.ipfs.cid import DAG_PB, RAW, Cid, digest_of


class CommandError(Exception):
    """Answered with status 500 and JSON."""


Folder = dict[str, "Cid | Folder"]


@dataclass(slots=True)
class Node:
    """What a node holds."""

    blocks: dict[bytes, bytes] = field(default_factory=dict)          # by digest
    pins: dict[str, str] = field(default_factory=dict)                # CID -> name; all recursive
    tsizes: dict[Cid, int] = field(default_factory=dict)              # of roots: encoded bytes of all their blocks
    root: Folder = field(default_factory=dict)                        # of MFS
    version: str = "0.42.0"

    # ------------------------------------------------------------ blocks

    def block(self, cid: Cid) -> bytes:
        if cid.digest not in self.blocks:
            raise CommandError(f"block was not found locally (offline): ipld: could not find {cid}")
        return self.blocks[cid.digest]

    def node(self, cid: Cid) -> dag.Node:
        try:
            return dag.decode_node(self.block(cid))
        except ValueError as error:
            raise CommandError("protobuf: (PBNode) invalid wireType, expected 2, got 5") from error

    def walk(self, cid: Cid) -> Iterator[Cid]:
        """It and all below. What is missing is an error; raw blocks are not looked at otherwise."""
        yield cid
        if cid.codec == RAW:
            self.block(cid)
            return
        for link in self.node(cid).links:
            yield from self.walk(link.cid)

    def collect(self) -> list[Cid]:
        """repo/gc: what neither a pin nor MFS names goes. Of a pin what is missing ends it; of MFS it does not."""
        kept = {cid.digest for name in self.pins for cid in self.walk(Cid.parse(name))}
        for cid in [self.folder_cid(self.root), *self.everything(self.root)]:
            kept.add(cid.digest)
            with contextlib.suppress(CommandError):
                kept.update(below.digest for below in self.walk(cid))
        gone = [digest for digest in self.blocks if digest not in kept]
        for digest in gone:
            del self.blocks[digest]
        return [Cid(1, RAW, digest) for digest in gone]

    # ------------------------------------------------------------ MFS

    def everything(self, folder: Folder) -> Iterator[Cid]:
        for there in folder.values():
            if isinstance(there, Cid):
                yield there
            else:
                yield from self.everything(there)

    def folder_cid(self, folder: Folder) -> Cid:
        """A folder is a block too, made here when somebody asks; version 0, as Kubo makes it unless it is told otherwise."""
        links = []
        for name, there in sorted(folder.items()):
            cid = there if isinstance(there, Cid) else self.folder_cid(there)
            links.append(dag.Link(name, cid, self.tsizes.get(cid, 0)))
        data = dag.encode_node(dag.Node(dag.DIRECTORY, tuple(links)))
        cid = Cid(0, DAG_PB, digest_of(data))
        self.blocks[cid.digest] = data
        return cid

    def find(self, path: str) -> Cid | Folder:
        """What is there; errors as MFS has them. What is opened is read: a root that is missing is an error."""
        there: Cid | Folder = self.root
        for name in parts(path):
            if isinstance(there, Cid):
                raise CommandError(f"cannot access {path.lstrip('/')}: Not a directory")
            if name not in there:
                raise CommandError("file does not exist")
            there = there[name]
        if isinstance(there, Cid):
            self.node(there) if there.codec == DAG_PB else self.block(there)
        return there

    def copy(self, source: str, path: str, make: bool, force: bool) -> None:
        cid = Cid.parse(source.removeprefix("/ipfs/"))
        try:
            self.block(cid)
        except CommandError as error:
            raise CommandError(f"cp: cannot get node from path {source}: {error}") from error
        folder, (*above, last) = self.root, parts(path)
        for name in above:
            if name not in folder and not make:
                raise CommandError(f"cp: cannot put node in path {path}: file does not exist")
            below = folder.setdefault(name, {})
            if isinstance(below, Cid):
                raise CommandError("file already exists")
            folder = below
        if force:
            if isinstance(folder.get(last), dict):
                raise CommandError(f"cp: cannot unlink existing file: not a file: {path}")
            folder.pop(last, None)
        if last in folder:
            raise CommandError(f"cp: cannot put node in path {path}: directory already has entry by that name")
        folder[last] = cid
        self.tsizes[cid] = sum(len(self.blocks.get(below.digest, b"")) for below in self.walk(cid))

    def remove(self, path: str, force: bool) -> str:
        """"", or what is wrong. By force anything goes, unread."""
        *above, last = parts(path)
        try:
            folder = self.find("/".join(above))
            assert isinstance(folder, dict)
            if not force and not isinstance(self.find(path), Cid):
                return f"{path}: path is a directory, use -r to remove directories"
        except CommandError as error:
            return f"{path}: {error}"
        folder.pop(last, None)
        return ""

    def files(self, folder: Folder | None = None, prefix: str = "") -> dict[str, Cid]:
        """Path -> root, of all."""
        found: dict[str, Cid] = {}
        for name, there in (self.root if folder is None else folder).items():
            found |= {f"{prefix}/{name}": there} if isinstance(there, Cid) else self.files(there, f"{prefix}/{name}")
        return found


def parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
