"""Directories and symlinks, against what `ipfs add -r --cid-version=1 --raw-leaves --chunker=size-1048576` of Kubo 0.42 printed for them,
and the `add` of Kubo 0.22 in its own default form."""
from __future__ import annotations

from collections.abc import Mapping

import pytest

from s3cfs.backends.ipfs import directory as module
from s3cfs.backends.ipfs.cid import DAG_PB, Cid, digest_of
from s3cfs.backends.ipfs.dag import DIRECTORY, HAMT_SHARD, SYMLINK, Builder, Form, Link, Root, decode_node
from s3cfs.backends.ipfs.directory import directory, symlink
from s3cfs.backends.types import Body

NEW, OLD = Form(links_max=174), Form(0, False, 262144, 174)
Tree = bytes | str | Mapping[str, "Tree"]        # a file, where a symlink leads, a directory

SMALL: Tree = {"a": {"empty": {}, "x": b"hi\n"}, "b": {"link": "../a/x"}, "dang": "nowhere"}
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
    links = [Link(name, root.cid, root.tsize) for name, root in roots.items()]
    return directory(links, sum(root.size for root in roots.values()), form, blocks.put)


@pytest.mark.parametrize(("tree", "form", "cid"), [
    ({}, NEW, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
    ({}, OLD, "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"),
    ({"e": {}}, NEW, "bafybeib4yeqdymlyylt44ykoxddycgnavqnoatqyxhtfsjpsv4suyxlaua"),
    ({"link": "../a/x"}, NEW, "bafybeif2xihqnzscjh3qfbwpf5qjpz6jzsvridwxevb3m2x6ju7d6kq2t4"),
    ("nowhere", NEW, "bafybeicfkztyetdy3wus3qxlv2snjunm7kxxfoyexh2tdvdxwlyzobajoy"),
    (SMALL, NEW, "bafybeiaubli2fdvij2skdq6xilyps63qtzeklfyfk64cnevleclum4xn5a"),
    (SMALL, OLD, "Qme8AXAUVwT7BtwgMCg1Y21KHGNAKa5okZ2rxkoJrow5G2"),
    (LARGE, NEW, "bafybeicd4odxmaeke4xm5wlvau2ua56w2vb3oxacldm42dh3peui3qaisy"),
    (LARGE, OLD, "QmXB2CcG6qJovDpGW947GW8cpBFFzLfndTDiiHwCjqMWZ7"),
    (AT_THE_LIMIT, NEW, "bafybeihxa436ind63rmoa2vgp2nmt4f5ihowsifr7si3wzofgswy4e7nwm"),
    (OVER_THE_LIMIT, NEW, "bafybeie3qmofdemhany453ukdu3pskn4xv4rq5i65xlymguik5j2amz6hq"),
    (ODD, NEW, "bafybeibtvx6ifpyqres463npl6dqvclffaolidziyncjdpmrcsjqh55meq"),
    (ODD, OLD, "QmdTjx21zdX2yQ4Wnf64gJvrLmKhNvfoL5gvfkNtp2jWaj"),
])
def test_vectors(tree: Tree, form: Form, cid: str):
    blocks = Blocks()
    root = added(tree, form, blocks)
    assert str(root.cid) == cid
    assert read(root.cid, blocks) == tree


def read(cid: Cid, blocks: Blocks) -> Tree:
    if cid.codec != DAG_PB:
        return blocks[cid.digest]
    node = decode_node(blocks[cid.digest])
    if node.type == SYMLINK:
        return node.data.decode()
    if node.type not in (DIRECTORY, HAMT_SHARD):
        return node.data
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


def test_names_of_one_hash(monkeypatch: pytest.MonkeyPatch):
    """As deep as the hash is long; two names with all of it in common are refused by name."""
    hashes = {"a": bytes(8), "b": bytes(7) + b"\1", **{f"{i}": bytes([i, *bytes(7)]) for i in range(1, 9)}}
    monkeypatch.setattr(module, "DIRECTORY_MAX_BYTES", 100)
    monkeypatch.setattr(module, "_hash", lambda name: hashes.get(name.decode(), bytes(8)))
    blocks, tree = Blocks(), {name: name.encode() for name in hashes}
    root = added(tree, NEW, blocks)
    assert read(root.cid, blocks) == tree
    assert sum(decode_node(data).type == HAMT_SHARD for data in blocks.values() if data[:1] == b"\x12") == 8
    with pytest.raises(ValueError, match="'a' and 'c' have the same hash"):
        added({**tree, "c": b"c"}, NEW, blocks)
