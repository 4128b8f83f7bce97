"""What ipfs+rpc:// relies on, seen in a real Kubo. The suite, the crashes and the trip run on it as on any store (kubo.py)."""
from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.ipfs import dag
from s3cfs.backends.ipfs.cid import Cid, block_key
from s3cfs.backends.registry import open_backend
from s3cfs.errors import Denied, Exists, NotFound, StoreError
from tests.against.kubo_node import TOKEN, KuboNode
from tests.backends.suite import some_bytes

MIB = 1 << 20


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KuboNode]:
    """Nothing is kept in its memory of which blocks there are, since tests change them behind its back."""
    made = KuboNode(os.environ["S3CFS_TEST_KUBO"], tmp_path_factory.mktemp("node"))
    made.init(Datastore__BlockKeyCacheSize=0, Import__UnixFSHAMTDirectorySizeThreshold="8KiB")
    made.require_token()
    with made.daemon():
        yield made


@pytest.fixture
def backend(node: KuboNode, request: pytest.FixtureRequest) -> Iterator[Backend]:
    made = open_backend(f"ipfs+rpc://127.0.0.1:{node.port}/{request.node.name.replace('[', '-').replace(']', '')[:60]}", login="bearer",
                        password=node.token)
    made.check()
    made.assume_create_only(True)
    yield made
    made.close()


def block_file(node: KuboNode, digest: bytes) -> Path:
    """Where flatfs has it."""
    key = block_key(digest)
    return node.repository / "blocks" / key[-3:-1] / f"{key}.data"


def rot(node: KuboNode, digest: bytes) -> None:
    path = block_file(node, digest)
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(bytes([data[0] ^ 7]) + data[1:])


def below(backend: Backend) -> str:
    return "s3cfs/" + backend.location.partition("://")[2].partition("/")[2]


@pytest.mark.parametrize("size", [0, 100, MIB, 2_500_000, 60_000_000])
def test_an_object_is_what_its_own_add_makes_and_is_pinned_under_its_name(node, backend, size):
    data = random.Random(size).randbytes(size)
    backend.put("pack/aa/1", data)
    cid = node.add(data, cid_version="1", raw_leaves="true", chunker="size-1048576", max_file_links="1024", pin="false", only_hash="true")
    assert node.pins()[cid] == below(backend) + "pack/aa/1"
    assert node.rpc("cat", cid, offline="true") == data == node.rpc("files/read", f"/{below(backend)}pack/aa/1")
    assert node.blocks(cid) == {str(dag.blocks_of(data)[0].cid), *({} if size <= MIB else [str(link.cid) for link in dag.decode_node(
        node.rpc("block/get", cid)).links])}


def test_a_collection_takes_what_was_deleted_and_nothing_else(node, backend):
    objects = {f"pack/aa/{number}": some_bytes(2 * MIB + number, number) for number in range(4)}
    for key, data in objects.items():
        backend.put(key, data)
    with pytest.raises(Exists):
        backend.put("pack/aa/0", b"the loser", only_if_absent=True)
    roots = {key: dag.blocks_of(data)[0] for key, data in objects.items()}
    backend.delete("pack/aa/0")
    node.rpc("pin/rm", str(roots["pack/aa/1"].cid))                    # of this only MFS knows now
    node.rpc("files/rm", f"/{below(backend)}pack/aa/2")                # and of this only its pin
    gone = node.collect()
    digests = {block.digest for block in dag.blocks_of(objects["pack/aa/0"])[1]} | {dag.blocks_of(b"the loser")[0].digest}
    assert {block_key(digest) for digest in digests} <= {block_key(Cid.parse(cid).digest) for cid in gone}
    assert backend.get("pack/aa/1") == objects["pack/aa/1"] and backend.get("pack/aa/3") == objects["pack/aa/3"]
    assert node.rpc("cat", str(roots["pack/aa/2"].cid), offline="true") == objects["pack/aa/2"]


def test_collections_that_never_end_take_nothing_of_what_is_being_put(node, backend):
    """A put that loses blocks before they are pinned is told so, and made again by whoever asked for it."""
    ended, objects, again = threading.Event(), {f"pack/{n % 5}/{n}": some_bytes(MIB + 7 + n, n) for n in range(60)}, []

    def put(key: str) -> None:
        while True:
            try:
                backend.put(key, objects[key])
                return
            except StoreError as error:
                assert error.retryable, error
                again.append(key)

    def collecting() -> int:
        rounds = 0
        while not ended.is_set():
            node.collect()
            rounds += 1
        return rounds

    with ThreadPoolExecutor(9) as pool:
        collections = pool.submit(collecting)
        try:
            list(pool.map(put, objects))
        finally:
            ended.set()
        assert collections.result() > 3
    print(f"{collections.result()} collections, {len(again)} puts made again")
    assert {info.key: backend.get(info.key) for info in backend.list("")} == objects


def test_a_folder_so_large_that_the_node_shards_it_is_listed(node, backend):
    """More than 8 KiB of links here, 256 KiB of a node as it is; a small folder is one block."""
    names = [f"{number:05}-" + "x" * 100 for number in range(300)]
    for name in names[:2]:
        backend.put(f"pack/small/{name}", b"x")
    for name in names:
        backend.put(f"pack/large/{name}", b"x")
    kinds = []
    for folder in ("small", "large"):
        cid = next(line["Hash"] for line in node.lines("files/stat", f"/{below(backend)}pack/{folder}"))
        kinds.append(dag.decode_node(node.rpc("block/get", cid)).type)
    assert kinds == [dag.DIRECTORY, dag.HAMT_SHARD]
    assert sorted(info.key for info in backend.list("pack/large/")) == [f"pack/large/{name}" for name in names]
    assert {info.size for info in backend.list("pack/")} == {1}
    backend.delete(f"pack/large/{names[7]}")
    assert len(list(backend.list("pack/large/"))) == len(names) - 1


@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_what_is_damaged_is_named_hides_nothing_and_can_be_deleted(node, backend, size):
    data, other = some_bytes(size), some_bytes(3 * MIB, 2)
    backend.put("pack/aa/1", data)
    backend.put("pack/aa/2", other)
    tree, _ = dag.blocks_of(data)
    rot(node, tree.digest)
    if size > MIB:                                                     # else it is a leaf, and what is in it is sealed
        with pytest.raises(NotFound, match=str(tree.cid)):
            backend.get("pack/aa/1")
    assert [info.key for info in backend.list("pack/")] == ["pack/aa/1", "pack/aa/2"]
    assert backend.get("pack/aa/2") == other
    block_file(node, tree.digest).unlink()
    with pytest.raises(NotFound, match=str(tree.cid)):
        backend.get("pack/aa/1")
    backend.delete("pack/aa/1")
    assert [info.key for info in backend.list("pack/")] == ["pack/aa/2"]
    node.collect()                                                     # a pin without its blocks would end it


def test_a_node_with_a_net_does_not_wait_for_what_is_missing(node, tmp_path):
    """Asked for such a name by files/... it would, with the folder locked, and no name could be given or taken any more."""
    other = KuboNode(node.program, tmp_path / "other")
    other.init(Datastore__BlockKeyCacheSize=0)
    with other.daemon(offline=False), closing(open_backend(f"ipfs+rpc://127.0.0.1:{other.port}/x", {"tcp-timeout": "15"})) as mine:
        mine.assume_create_only(True)
        for size in (1000, 3 * MIB):
            lost = some_bytes(size, size)
            for key, data in (("pack/aa/lost", lost), ("pack/aa/there", b"there")):
                mine.put(key, data)
            block_file(other, dag.blocks_of(lost)[0].digest).unlink()
            other.rpc("files/flush", "/s3cfs/x/pack/aa")               # it has forgotten what it had open
            with pytest.raises(NotFound, match="block"):
                mine.get("pack/aa/lost")
            with pytest.raises(Exists):
                mine.put("pack/aa/lost", b"other bytes", only_if_absent=True)
            assert len(list(mine.list("pack/"))) == 2
            mine.put("pack/aa/lost", b"other bytes")
            assert mine.get("pack/aa/lost") == b"other bytes"
            mine.delete("pack/aa/lost")
            assert [info.key for info in mine.list("")] == ["pack/aa/there"]


def test_the_same_bytes_again_mend_a_damaged_block(node, backend):
    data = some_bytes(1000)
    backend.put("super/0", data)
    rot(node, dag.blocks_of(data)[0].digest)
    backend.put("super/0", data)
    assert backend.get("super/0") == data


def test_what_it_acknowledged_outlives_its_death(node, backend, tmp_path):
    other = KuboNode(node.program, tmp_path / "other")
    other.init()
    objects = {f"pack/{number % 4}/{number}": some_bytes(5000, number) for number in range(40)}
    with other.daemon(), closing(open_backend(f"ipfs+rpc://127.0.0.1:{other.port}/x")) as mine:
        for key, data in objects.items():
            mine.put(key, data)
        mine.delete("pack/0/0")
        del objects["pack/0/0"]
        other.kill()
        with pytest.raises(Exception, match="Connection refused|ended before"):
            mine.check()
    with other.daemon(), closing(open_backend(f"ipfs+rpc://127.0.0.1:{other.port}/x")) as mine:
        assert {info.key: mine.get(info.key) for info in mine.list("")} == objects


def test_without_the_token_it_says_no(node):
    for login, password in (("", ""), ("bearer", "wrong"), ("user", "wrong")):
        with closing(open_backend(f"ipfs+rpc://127.0.0.1:{node.port}/x", login=login, password=password)) as other:
            with pytest.raises(Denied, match="backend-login"):
                other.check()
            with pytest.raises(Denied):
                other.put("pack/aa/1", some_bytes(5 * MIB))


def test_what_the_documents_allow_is_enough_and_no_less(node, tmp_path):
    other = KuboNode(node.program, tmp_path / "other")
    other.init()
    paths = ["/api/v0/files", "/api/v0/block", "/api/v0/dag/import", "/api/v0/pin"]
    for left_out in (None, *paths):
        other.token = TOKEN
        allowed = [path for path in paths if path != left_out]
        other.config(API__Authorizations={"one": {"AuthSecret": "basic:user:secret", "AllowedPaths": allowed},
                                          "two": {"AuthSecret": f"bearer:{TOKEN}", "AllowedPaths": ["/api/v0"]}})
        with other.daemon(), closing(open_backend(f"ipfs+rpc://127.0.0.1:{other.port}/x", login="user", password="secret")) as mine:
            def all_of_it(mine: Backend = mine) -> None:
                mine.check()
                mine.put("pack/aa/1", some_bytes(3 * MIB))
                mine.put("pack/aa/1", some_bytes(3 * MIB))
                assert mine.get("pack/aa/1") == some_bytes(3 * MIB) and len(list(mine.list(""))) == 1
                mine.delete("pack/aa/1")
            if left_out is None:
                all_of_it()
            else:
                with pytest.raises(Denied):
                    all_of_it()


def test_what_is_exported_is_pinned(node, backend):
    data = some_bytes(3 * MIB)
    tree, blocks = dag.blocks_of(data)
    for block in blocks:
        backend.put_block(block.digest, block.data)
    backend.keep_root(tree.cid, "photos")
    assert node.pins()[str(tree.cid)] == "s3cfs-export/photos"
    node.collect()
    assert node.rpc("cat", str(tree.cid), offline="true") == data
