"""A file as a UnixFS graph: leaves of raw bytes, balanced nodes of dag-pb above them, all named by CIDv1 with sha2-256. Pure.

What an object becomes is what `ipfs add --cid-version=1 --raw-leaves --chunker=size-1048576 --max-file-links=1024` makes of it (the profile
unixfs-v1-2025). Up to 1 MiB that is one raw block; otherwise a node of at most 1024 links, or a tree of such. `Form` has the other ways.

    node   = dag-pb: links (field 2) before data (field 1)      link = {1: CID, 2: name "", 3: size of all below, encoded}
    data   = UnixFS {1: type, 2: bytes, 3: size of the file, 4: bytes below each link ...}
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from s3cfs.backends.ipfs.cid import DAG_PB, RAW, Cid, decode_varint, digest_of, encode_varint
from s3cfs.backends.types import Body
from s3cfs.limits import MIB

LEAF_BYTES = 1 * MIB               # every node takes, sends and serves blocks of that size; some nothing larger
LINKS_MAX = 1024
FILE_RAW, DIRECTORY, FILE, METADATA, SYMLINK, HAMT_SHARD = range(6)      # types of UnixFS


class Block(NamedTuple):
    digest: bytes                  # sha2-256 of the data, 32 bytes
    data: Body


class Link(NamedTuple):
    """`tsize`: encoded bytes of the child and of all below it."""

    name: str
    cid: Cid
    tsize: int


@dataclass(frozen=True, slots=True)
class Node:
    """A block of codec dag-pb. `blocksizes`: of a file, the bytes of it below each link. `fanout`: of a shard of a directory."""

    type: int
    links: tuple[Link, ...] = ()
    data: bytes = b""
    filesize: int = 0
    blocksizes: tuple[int, ...] = ()
    hash_type: int = 0
    fanout: int = 0


class Root(NamedTuple):
    """What names a file, directory or symlink. `size`: bytes of content; `tsize`: encoded bytes of it and all below."""

    cid: Cid
    size: int
    tsize: int


@dataclass(frozen=True, slots=True)
class Form:
    """How a file becomes a graph, in the terms of `ipfs add`; by default as objects of s3cfs do.

    `version`: of CIDs. `raw_leaves`: a leaf is the bytes themselves, not a node around them.
    """

    version: int = 1
    raw_leaves: bool = True
    leaf_bytes: int = LEAF_BYTES
    links_max: int = LINKS_MAX

    def leaf(self, data: Body) -> tuple[Block, Root]:
        if self.raw_leaves:
            digest = digest_of(data)
            return Block(digest, data), Root(Cid(1, RAW, digest), len(data), len(data))
        return self.named(encode_node(Node(FILE, data=bytes(data), filesize=len(data))), (), len(data))

    def file_node(self, children: Sequence[Root]) -> tuple[Block, Root]:
        """The node above these parts of a file."""
        size = sum(child.size for child in children)
        links = tuple(Link("", child.cid, child.tsize) for child in children)
        return self.named(encode_node(Node(FILE, links, filesize=size, blocksizes=tuple(child.size for child in children))), links, size)

    def named(self, data: bytes, links: Iterable[Link], size: int) -> tuple[Block, Root]:
        """The block that `encode_node` made, with those links."""
        block = Block(digest_of(data), data)
        return block, Root(Cid(self.version, DAG_PB, block.digest), size, len(data) + sum(link.tsize for link in links))


OBJECT = Form()


class Builder:
    """The nodes above leaves that come one by one, each as soon as it is full: so what is held is a few lists of at most `links_max`."""

    def __init__(self, form: Form = OBJECT) -> None:
        self._form = form
        self._levels: list[list[Root]] = [[]]

    def add(self, leaf: Root) -> list[Block]:
        """The nodes that are full now; most often none."""
        return self._add(0, leaf)

    def finish(self) -> tuple[list[Block], Root]:
        """The nodes still missing, the root last (none, if one leaf is all), and the root. After at least one leaf."""
        blocks: list[Block] = []
        level = 0
        while level < len(self._levels) - 1 or len(self._levels[level]) > 1:
            blocks += self._close(level)
            level += 1
        return blocks, self._levels[level][0]

    def _add(self, level: int, child: Root) -> list[Block]:
        if level == len(self._levels):
            self._levels.append([])
        full = len(self._levels[level]) == self._form.links_max       # closed only now, since a full group may be the root
        blocks = self._close(level) if full else []
        self._levels[level].append(child)
        return blocks

    def _close(self, level: int) -> list[Block]:
        block, root = self._form.file_node(self._levels[level])
        self._levels[level] = []
        return [block, *self._add(level + 1, root)]


@dataclass(frozen=True, slots=True)
class Tree:
    """The graph of a file, without its leaves. `nodes`: those above them, from below, the root last; none where one leaf is all."""

    root: Root
    nodes: tuple[Block, ...]

    @classmethod
    def of(cls, size: int, digests: Iterable[bytes]) -> Tree:
        """Of the file's size and its leaves' digests alone, in their order. ValueError: these are not as many as such a file has."""
        builder, nodes, left, count = Builder(), list[Block](), size, 0
        for digest in digests:
            length = min(left, LEAF_BYTES)
            nodes += builder.add(Root(Cid(1, RAW, digest), length, length))
            left -= length
            count += 1
        if count != leaf_count(size):
            raise ValueError(f"{count} leaves are not as many as a file of {size} bytes has")
        last, root = builder.finish()
        return cls(root, (*nodes, *last))

    @property
    def cid(self) -> Cid:
        return self.root.cid

    @property
    def digest(self) -> bytes:
        return self.root.cid.digest

    @property
    def codec(self) -> int:
        """RAW or DAG_PB."""
        return self.root.cid.codec

    @property
    def size(self) -> int:
        return self.root.size

    @property
    def cumulative_bytes(self) -> int:
        """Of all blocks, as nodes count them: one that occurs twice counts twice."""
        return self.root.tsize


def leaf_count(size: int) -> int:
    """An empty file has one, empty leaf."""
    return max(1, -(-size // LEAF_BYTES))


def leaves(data: Body) -> Iterator[memoryview]:
    view = memoryview(data)
    for at in range(0, len(view) or 1, LEAF_BYTES):
        yield view[at:at + LEAF_BYTES]


def blocks_of(data: Body) -> tuple[Tree, Iterator[Block]]:
    """The graph of an object, and all of its blocks: leaves (parts of `data`, not copied), nodes, the root last."""
    parts = [Block(digest_of(leaf), leaf) for leaf in leaves(data)]
    tree = Tree.of(len(data), (block.digest for block in parts))
    return tree, iter((*parts, *tree.nodes))


def encode_node(node: Node) -> bytes:
    """As Kubo encodes it: a file and a shard say their size, a directory does not; an empty name of a link is written."""
    out = bytearray()
    for link in node.links:
        out += _field(2, _field(1, bytes(link.cid)) + _field(2, link.name.encode("utf-8", "surrogateescape")) + _number(3, link.tsize))
    data = _number(1, node.type)
    if node.data:
        data += _field(2, node.data)
    if node.type in (FILE, FILE_RAW):
        data += _number(3, node.filesize)
    data += b"".join(_number(4, size) for size in node.blocksizes)
    if node.type == HAMT_SHARD:
        data += _number(5, node.hash_type) + _number(6, node.fanout)
    return bytes(out + _field(1, data))


def decode_node(data: Body) -> Node:
    """A block of codec dag-pb, ours or a foreign one. ValueError, whose text says what is wrong: damaged, or not of UnixFS."""
    links: list[Link] = []
    unixfs: bytes | None = None
    for field, value in _fields(data):
        if field == 2 and isinstance(value, bytes):
            links.append(_decode_link(value))
        elif field == 1 and isinstance(value, bytes) and unixfs is None:
            unixfs = value
        else:
            raise ValueError(f"field {field} has no place in a node")
    if unixfs is None:
        raise ValueError("a node without data is none of UnixFS")
    node = _decode_unixfs(unixfs, tuple(links))
    if node.type == FILE and (len(node.blocksizes) != len(links) or sum(node.blocksizes) + len(node.data) != node.filesize):
        raise ValueError("the sizes in a file's node do not agree")
    return node


def _decode_link(data: bytes) -> Link:
    found: dict[int, int | bytes] = {}
    for field, value in _fields(data):
        if field in found or not isinstance(value, {1: bytes, 2: bytes, 3: int}.get(field, ())):
            raise ValueError(f"field {field} has no place in a link")
        found[field] = value
    cid, name, tsize = found.get(1), found.get(2, b""), found.get(3, 0)
    if not isinstance(cid, bytes) or not isinstance(name, bytes) or not isinstance(tsize, int):
        raise ValueError("a link names no block")
    return Link(name.decode("utf-8", "surrogateescape"), Cid.decode(cid), tsize)


def _decode_unixfs(data: bytes, links: tuple[Link, ...]) -> Node:
    numbers: dict[int, int] = {}
    content, sizes = b"", list[int]()
    for field, value in _fields(data):
        if field == 4:
            sizes += [value] if isinstance(value, int) else _packed(value)
        elif field == 2 and isinstance(value, bytes):
            content = value
        elif field in (1, 3, 5, 6, 7) and isinstance(value, int) and field not in numbers:
            numbers[field] = value
        elif field != 8:               # its time, which s3cfs has no use for; like the mode, 7
            raise ValueError(f"field {field} has no place in UnixFS")
    kind = numbers.get(1, -1)
    if kind not in range(HAMT_SHARD + 1):
        raise ValueError(f"UnixFS has no type {kind}")
    return Node(kind, links, content, numbers.get(3, len(content) if kind in (FILE, FILE_RAW) else 0), tuple(sizes), numbers.get(5, 0),
                numbers.get(6, 0))


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = decode_varint(data, at)
        yield number


def _fields(data: Body) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: numbers and bytes, the only ones that occur here."""
    at = 0
    while at < len(data):
        tag, at = decode_varint(data, at)
        number, at = decode_varint(data, at)
        if tag & 7 == 0:
            yield tag >> 3, number
        elif tag & 7 == 2:
            if at + number > len(data):
                raise ValueError("a field is cut short")
            yield tag >> 3, bytes(data[at:at + number])
            at += number
        else:
            raise ValueError(f"a field has kind {tag & 7}")


def _number(field: int, value: int) -> bytes:
    return encode_varint(field << 3) + encode_varint(value)


def _field(field: int, value: bytes) -> bytes:
    return encode_varint(field << 3 | 2) + encode_varint(len(value)) + value
