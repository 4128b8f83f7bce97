"""Directories and symlinks, against what `ipfs add -r --cid-version=1 --raw-leaves --chunker=size-1048576` of Kubo 0.42 printed for them,
and the `add` of Kubo 0.22 in its own default form."""
from __future__ import annotations

import pytest

from s3cfs.backends.ipfs import directory as module
from s3cfs.backends.ipfs.dag import HAMT_SHARD, Form, decode_node
from tests.backends.ipfs.trees import AT_THE_LIMIT, LARGE, NEW, ODD, OLD, OVER_THE_LIMIT, SMALL, Blocks, Tree, added, content, read


@pytest.mark.parametrize(("tree", "form", "cid"), [
    ({}, NEW, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
    ({}, OLD, "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"),
    ({"e": {}}, NEW, "bafybeib4yeqdymlyylt44ykoxddycgnavqnoatqyxhtfsjpsv4suyxlaua"),
    ({"link": "../a/x"}, NEW, "bafybeif2xihqnzscjh3qfbwpf5qjpz6jzsvridwxevb3m2x6ju7d6kq2t4"),
    ("nowhere", NEW, "bafybeicfkztyetdy3wus3qxlv2snjunm7kxxfoyexh2tdvdxwlyzobajoy"),
    (SMALL, NEW, "bafybeiaubli2fdvij2skdq6xilyps63qtzeklfyfk64cnevleclum4xn5a"),
    (SMALL, OLD, "Qme8AXAUVwT7BtwgMCg1Y21KHGNAKa5okZ2rxkoJrow5G2"),
    (LARGE, NEW, "bafybeicd4odxmaeke4xm5wlvau2ua56w2vb3oxacldm42dh3peui3qaisy"),
    (AT_THE_LIMIT, NEW, "bafybeihxa436ind63rmoa2vgp2nmt4f5ihowsifr7si3wzofgswy4e7nwm"),
    (OVER_THE_LIMIT, NEW, "bafybeie3qmofdemhany453ukdu3pskn4xv4rq5i65xlymguik5j2amz6hq"),
    (ODD, NEW, "bafybeibtvx6ifpyqres463npl6dqvclffaolidziyncjdpmrcsjqh55meq"),
    (ODD, OLD, "QmdTjx21zdX2yQ4Wnf64gJvrLmKhNvfoL5gvfkNtp2jWaj"),
])
def test_vectors(tree: Tree, form: Form, cid: str):
    blocks = Blocks()
    root = added(tree, form, blocks)
    assert str(root.cid) == cid and root.size == content(tree)
    assert read(root.cid, blocks) == tree


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
