"""Graphs and their names, against vectors that the reference importer and Kubo 0.22 made; what is damaged is refused."""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.backends.ipfs.car import SECTION_MAX_BYTES, Archive, archive, header
from s3cfs.backends.ipfs.cid import DAG_PB, RAW, Cid, block_key, decode_varint, digest_of, digest_of_key, encode_varint
from s3cfs.backends.ipfs.dag import (
    DIRECTORY,
    FILE,
    HAMT_SHARD,
    LEAF_BYTES,
    SYMLINK,
    Block,
    Builder,
    Form,
    Link,
    Node,
    Root,
    Tree,
    blocks_of,
    decode_node,
    encode_node,
    leaf_count,
    leaves,
)

PATTERN = bytes(i % 251 for i in range(251)) * 10_000
HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
HELLO_KEY = "CIQLSTJHXGJU2PQIUUXFFV62PWV7VREE57RXUU4A52IIR55M4LX432I"
LARGE = "bafybeih7ahcm3l4fztng26so42m3uy3evbq4hfrubw2z4j7hbrq2xyxixe"
LARGE_KEY = "CIQP6AOEZWXYLTG2NV5E5ZUZXJRWJKDBYOLDIDNVTYT6ODDBVPROROI"


def tree_of(data: bytes) -> Tree:
    return Tree.of(len(data), map(digest_of, leaves(data)))


def built(data: bytes, form: Form) -> tuple[list[Block], Root]:
    """All blocks of a file in this form."""
    builder, blocks = Builder(form), []
    for at in range(0, len(data) or 1, form.leaf_bytes):
        block, leaf = form.leaf(data[at:at + form.leaf_bytes])
        blocks += [block, *builder.add(leaf)]
    last, root = builder.finish()
    return [*blocks, *last], root


def test_vectors_of_files():
    assert str(tree_of(b"hello world").cid) == HELLO
    assert str(tree_of(PATTERN[:LEAF_BYTES]).cid) == "bafkreidddocae7lltzjlkooe5a3tmiwsgazn7logjvqk7bzttsidpzhxne"
    for form, cid in ((Form(leaf_bytes=262144), "bafybeifqjpdjlstj5ruqmfy3kex5yjnl3yrzjqiyk5jdr2cfv4ieyyhcpm"),
                      (Form(0, False, 262144, 174), "QmRTQG4S3iQeRsETpDSN5QJBD8uZDSGSan4nMcDS6duJ5U")):
        assert str(built(PATTERN[:2_500_000], form)[1].cid) == cid
    three_levels = built(PATTERN[:125_000], Form(leaf_bytes=4, links_max=174))
    assert str(three_levels[1].cid) == "bafybeifodsaloxuq6q6xuyempsrqcm4atcfep6nxl5tusqiubdrtum2cre"
    tree, blocks = blocks_of(PATTERN[:2_500_000])
    found = list(blocks)
    assert (str(tree.cid), tree.size, tree.cumulative_bytes, len(found)) == (LARGE, 2_500_000, 2_500_159, 4)
    assert block_key(tree.digest) == LARGE_KEY and tree.codec == DAG_PB
    root = bytes(found[-1].data)
    assert len(root) == 159 and root.hex().startswith("122c0a2401551220631b8402")
    assert root.hex().endswith("0a13080218a0cb9801208080402080804020a0cb18")
    assert all(hashlib.sha256(block.data).digest() == block.digest for block in found)


def test_small_files_are_one_raw_block():
    for size in (0, 1, LEAF_BYTES):
        tree, blocks = blocks_of(bytes(size))
        (block,) = blocks
        assert (tree.nodes, tree.digest, tree.codec) == ((), block.digest, RAW)
        assert tree.cumulative_bytes == tree.size == size == len(block.data)
    assert str(tree_of(b"").cid) == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@pytest.mark.parametrize("links_max", [2, 3, 17])
def test_trees_are_balanced(links_max: int):
    """Level by level, groups from left to right, until one node is left; a group of one is one where there are others beside it."""
    for count in (*range(1, 30), links_max - 1, links_max, links_max + 1, links_max ** 2, links_max ** 2 + 1):
        form, builder, seen = Form(links_max=links_max), Builder(Form(links_max=links_max)), list[Block]()
        level, nodes = [form.leaf(b"%d" % i)[1] for i in range(count)], []
        for leaf in level:
            seen += builder.add(leaf)
        last, root = builder.finish()
        while len(level) > 1:
            made = [form.file_node(level[at:at + links_max]) for at in range(0, len(level), links_max)]
            nodes += [block for block, _ in made]
            level = [root for _, root in made]
        assert root == level[0] and sorted([*seen, *last]) == sorted(nodes)


@pytest.mark.parametrize("form", [Form(links_max=2, leaf_bytes=3), Form(0, False, 3, 2)])
def test_blocks_come_after_what_they_name(form: Form):
    blocks, root = built(bytes(range(32)), form)
    known, content = set[bytes](), b""
    for block in blocks:
        codec = RAW if form.raw_leaves and len(block.data) <= 3 else DAG_PB
        node = decode_node(block.data) if codec == DAG_PB else Node(FILE, data=bytes(block.data))
        assert {link.cid.digest for link in node.links} <= known
        content += node.data
        known.add(block.digest)
    assert root.cid.digest == blocks[-1].digest and root.size == 32 and content == bytes(range(32))
    assert root.tsize == sum(len(block.data) for block in blocks)


def test_leaves_must_be_as_many_as_the_size_says():
    for size, count in ((0, 0), (0, 2), (1, 0), (LEAF_BYTES, 2), (LEAF_BYTES + 1, 1)):
        with pytest.raises(ValueError, match="not as many"):
            Tree.of(size, [bytes(32)] * count)
    assert [leaf_count(size) for size in (0, 1, LEAF_BYTES, LEAF_BYTES + 1)] == [1, 1, 1, 2]


def test_names_of_blocks():
    cid = Cid.parse(HELLO)
    assert cid == (1, RAW, hashlib.sha256(b"hello world").digest()) and str(cid) == HELLO and cid.codec_name == "raw"
    assert block_key(cid.digest) == HELLO_KEY and digest_of_key(HELLO_KEY) == cid.digest
    assert Cid.decode(bytes(cid)) == cid and bytes(cid).hex().startswith("01551220")
    old = Cid.parse("QmRTQG4S3iQeRsETpDSN5QJBD8uZDSGSan4nMcDS6duJ5U")
    assert (old.version, old.codec) == (0, DAG_PB) and str(old) == "QmRTQG4S3iQeRsETpDSN5QJBD8uZDSGSan4nMcDS6duJ5U"
    assert Cid.decode(bytes(old)) == old and len(bytes(old)) == 34
    assert str(Cid.parse("zdj7WnbLc7pEsotDHHfRn3jGLQdd9zCwxopDeufJ8jcCYVrgG")) == LARGE


@pytest.mark.parametrize("text", [
    "", "b", "Qm", HELLO.upper(), HELLO[:-1], HELLO[:-1] + "1", HELLO + "aa", HELLO[1:], "b" + HELLO[1:].upper(), "k" + HELLO[1:],
    "Qm" + "0" * 44, "zQmRTQG4S3iQeRsETpDSN5QJBD8uZDSGSan4nMcDS6duJ5U", "baaaa", "bafkr4i" + HELLO[7:]])
def test_what_is_no_cid(text: str):
    with pytest.raises(ValueError):
        Cid.parse(text)


@pytest.mark.parametrize("key", ["", "CIQ", "BACKUP22", HELLO_KEY[:-1], HELLO_KEY + "A", HELLO_KEY.lower(), "/" + HELLO_KEY,
                                 HELLO_KEY[:-1] + "J", "UDSAEIBFNSB3FFYRJUQBWMAXT47Q54GKZ2LYGYRNUWLUGJVUGYLYV3XWCA"])
def test_what_is_no_key_of_ours(key: str):
    with pytest.raises(ValueError):
        digest_of_key(key)


@given(st.integers(0, 2**64 - 1))
def test_varints(number: int):
    data = encode_varint(number)
    assert decode_varint(b"x" + data + b"y", 1) == (number, 1 + len(data))
    with pytest.raises(ValueError):
        decode_varint(data[:-1], 0)


def test_too_large_a_varint():
    for data in (b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x01"):
        with pytest.raises(ValueError, match="64 bits"):
            decode_varint(data, 0)


NAMES = st.binary(max_size=20).map(lambda name: name.decode("utf-8", "surrogateescape"))
SIZES = st.integers(0, 2**40)
CIDS = st.builds(Cid, st.just(1), st.sampled_from([RAW, DAG_PB]), st.binary(min_size=32, max_size=32))
LINKS = st.lists(st.builds(Link, NAMES, CIDS, SIZES), max_size=5)


@st.composite
def nodes(draw: Callable[..., object]) -> Node:
    links: tuple[Link, ...] = tuple(draw(LINKS))            # type: ignore[arg-type]
    kind = draw(st.sampled_from([DIRECTORY, FILE, SYMLINK, HAMT_SHARD]))
    data: bytes = draw(st.binary(max_size=20))              # type: ignore[assignment]
    if kind == FILE:
        sizes: tuple[int, ...] = tuple(draw(SIZES) for _ in links)      # type: ignore[misc]
        return Node(FILE, links, data, sum(sizes) + len(data), sizes)
    return Node(kind, links, data, hash_type=0x22, fanout=256) if kind == HAMT_SHARD else Node(kind, links, data)      # type: ignore[arg-type]


@given(nodes())
def test_nodes_read_back(node: Node):
    data = encode_node(node)
    assert decode_node(data) == node
    assert decode_node(memoryview(data)) == node


@given(nodes(), st.data())
def test_damaged_nodes(node: Node, data: st.DataObject):
    """Cut short, or with other bytes: a ValueError, or a node; nothing else."""
    good = encode_node(node)
    with pytest.raises(ValueError):
        decode_node(good[:data.draw(st.integers(0, len(good) - 1))])
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode_node(bad)
    except ValueError:
        pass


def test_nodes_of_others():
    """What Kubo reads too: the data before the links, sizes packed, a mode and a time."""
    link = b"\x12\x2a\x0a\x24" + bytes(Cid.parse(HELLO)) + b"\x12\x00\x18\x0b"
    packed = b"\x0a\x09\x08\x02\x18\x0b\x22\x01\x0b\x38\x01"
    assert decode_node(packed + link) == Node(FILE, (Link("", Cid.parse(HELLO), 11),), filesize=11, blocksizes=(11,))
    assert decode_node(b"\x0a\x06\x08\x02\x12\x02hi") == Node(FILE, data=b"hi", filesize=2)
    twice = b"\x12\x2c" + link[2:] + b"\x18\x0b"
    for bad in (b"", b"\x0a\x00", link, twice + b"\x0a\x02\x08\x01", packed, b"\x0a\x02\x08\x09", b"\x0a\x02\x08\x02\x0a\x02\x08\x02",
                b"\x1a\x00", b"\x0d\x00\x00\x00\x00", b"\x12\x02\x12\x00\x0a\x02\x08\x01", b"\x0a\x06\x08\x02\x18\x03\x18\x03"):
        with pytest.raises(ValueError):
            decode_node(bad)


def test_archives():
    tree, blocks = blocks_of(PATTERN[:2_500_000])
    named = [(tree.cid if block.digest == tree.digest else Cid(1, RAW, block.digest), block.data) for block in blocks]
    data = b"".join(archive([tree.cid], named))
    assert data[:59].hex() == "3aa265726f6f747381d82a5825000170122" + "0" + tree.digest.hex() + "6776657273696f6e01"
    read = Archive(BytesIO(data).read)
    assert read.roots == (tree.cid,) and list(read) == named
    for end in (0, 1, 30, 58, 60, 100, len(data) - 1):
        with pytest.raises(ValueError):
            list(Archive(BytesIO(data[:end]).read))
    for at in (0, 3, 12, 58, 70, 200, len(data) - 5):
        bad = bytearray(data)
        bad[at] ^= 1
        with pytest.raises(ValueError):
            list(Archive(BytesIO(bytes(bad)).read))
    more = data[:13] + b"\x00" + data[13:]
    longer = bytes([data[0] + 3]) + data[1:50] + b"\x01\x02\x03" + data[50:]
    for bad_header in (more, longer):
        with pytest.raises(ValueError):
            Archive(BytesIO(bad_header).read)
    two = Archive(BytesIO(header([tree.cid, Cid.parse(HELLO)])).read)
    assert two.roots == (tree.cid, Cid.parse(HELLO)) and list(two) == []
    with pytest.raises(ValueError, match="no block"):
        list(Archive(BytesIO(encode_varint(SECTION_MAX_BYTES + 1)).read))
    with pytest.raises(ValueError, match="24 roots"):
        header([tree.cid] * 24)
