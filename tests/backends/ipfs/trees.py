"""Trees for the tests of IPFS: as values, on the disk, as blocks; and back from blocks."""
from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from s3cfs.backends.ipfs.cid import DAG_PB, Cid, digest_of
from s3cfs.backends.ipfs.dag import DIRECTORY, HAMT_SHARD, SYMLINK, Builder, Form, Root, decode_node
from s3cfs.backends.ipfs.directory import Directory, symlink
from s3cfs.backends.types import Body

NEW, OLD = Form(links_max=174), Form(0, False, 262144, 174)
Tree = bytes | str | Mapping[str, "Tree"]        # a file, where a symlink leads, a directory

A: dict[str, Tree] = {"empty": {}, "x": b"hi\n"}
SMALL: dict[str, Tree] = {"a": A, "b": {"link": "../a/x"}, "dang": "nowhere"}
ODD: Tree = {"A": {"d0": {"d1": {"d2": {}}}}, "B": b"", "a b\tc\\d\ne%41?#*": b"z", "bad\udcff.txt": b"x", "dir\udcff\udcfe": {"in": b"y"},
             "n" * 255: b"n", "~x": b"1", "ä": b"1"}
LARGE: Tree = {f"name {i} äö": str(i % 17).encode() for i in range(9000)}
AT_THE_LIMIT: Tree = {f"{i:028}": b"x" for i in range(4096)}              # with their CIDs 256 KiB
OVER_THE_LIMIT: Tree = {**{f"{i:028}": b"x" for i in range(4095)}, "x" * 29: b"x"}


class Blocks(dict[bytes, bytes]):
    """What was put. A block comes after those that it names."""

    def put(self, cid: Cid, data: Body) -> None:
        assert digest_of(data) == cid.digest
        if cid.codec == DAG_PB:
            assert all(link.cid.digest in self for link in decode_node(data).links)
        self[cid.digest] = bytes(data)


def added(tree: Tree, form: Form, blocks: Blocks) -> Root:
    if isinstance(tree, str):
        return symlink(tree, form, blocks.put)
    if isinstance(tree, bytes):
        builder = Builder(form)
        block, leaf = form.leaf(tree)
        blocks.put(leaf.cid, block.data)
        assert builder.add(leaf) == []
        return builder.finish()[1]
    roots = {name: added(tree[name], form, blocks) for name in sorted(tree, reverse=True)}
    made = Directory()
    for name, root in roots.items():
        made.add(name, root)
    return made.finish(form, blocks.put)


def content(tree: Tree) -> int:
    return sum(map(content, tree.values())) if isinstance(tree, Mapping) else len(tree) if isinstance(tree, bytes) else 0


def read(cid: Cid, blocks: Blocks) -> Tree:
    if cid.codec != DAG_PB:
        return blocks[cid.digest]
    node = decode_node(blocks[cid.digest])
    if node.type == SYMLINK:
        return node.data.decode()
    if node.type not in (DIRECTORY, HAMT_SHARD):
        return node.data + b"".join(part for link in node.links if isinstance(part := read(link.cid, blocks), bytes))
    return {name: read(found, blocks) for name, found in entries(cid, blocks)}


def entries(cid: Cid, blocks: Blocks) -> list[tuple[str, Cid]]:
    node, found = decode_node(blocks[cid.digest]), []
    for link in node.links:
        if node.type == DIRECTORY:
            found.append((link.name, link.cid))
            continue
        taken = int.from_bytes(node.data, "big")
        assert taken >> int(link.name[:2], 16) & 1 and taken.bit_count() == len(node.links)
        found += [(link.name[2:], link.cid)] if link.name[2:] else entries(link.cid, blocks)
    return found


def on_disk(tree: Tree, path: Path) -> Path:
    """`path`, which is made."""
    if isinstance(tree, str):
        os.symlink(tree, path)
    elif isinstance(tree, bytes):
        path.write_bytes(tree)
    else:
        path.mkdir()
        for name, below in tree.items():
            on_disk(below, path / name)
    return path
